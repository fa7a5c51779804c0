"""The library under the `ebert` command: epigenomic language models for transcription-factor binding."""

__version__ = "0.1.0"
