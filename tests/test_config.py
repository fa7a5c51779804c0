"""Settings: presets that hold together, how files and options change them, and every fault told at once."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from ebert_core.config import PRESETS, FinetuneConfig, MaskingConfig, PrepareConfig, PretrainConfig, finetune_defaults
from ebert_core.errors import EbertError, InputError
from ebert_core.settings import resolve, settings_of

CONFIGS = [*PRESETS.values(), FinetuneConfig(), PrepareConfig()]


def write(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("config", CONFIGS)
def test_presets_and_defaults_hold_together(config):
    # model_copy does not check; this does.
    assert type(config).model_validate(config.model_dump()) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_is_described(config):
    def undescribed(model, prefix=""):
        for name, entry in model.model_fields.items():
            if hasattr(entry.annotation, "model_fields"):
                yield from undescribed(entry.annotation, f"{prefix}{name}.")
            elif not entry.description:
                yield f"{prefix}{name}"

    assert list(undescribed(type(config))) == []


def test_a_config_is_frozen_and_refuses_unknown_keys():
    with pytest.raises(ValidationError, match="frozen"):
        PretrainConfig().steps = 5
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PretrainConfig(stpes=5)


def test_presets_grow():
    sizes = [(p.encoder.num_layers, p.encoder.width) for p in PRESETS.values()]
    assert sizes == sorted(sizes)
    assert sizes[2:] == [(12, 768), (24, 1_024)], "BERT-base and BERT-large (Devlin et al. 2019)"


def test_the_order_of_changes(tmp_path):
    toml = write(tmp_path, "steps = 7\nseed = 3\n[masking]\ndna_rate = 0.3\nstate_rate = 0.4\n")
    config = resolve(PretrainConfig(), toml, ["masking.dna_rate=0.5", "steps=8"], steps=9, seed=None)
    assert config.steps == 9, "an option goes before a setting"
    assert config.masking.dna_rate == 0.5, "a setting goes before the file"
    assert config.masking.state_rate == 0.4, "the file goes before the preset"
    assert config.masking.dna_span_tokens == MaskingConfig().dna_span_tokens
    assert config.seed == 3, "an option that was not given changes nothing"


def test_nothing_changed_is_the_preset():
    assert resolve(PRESETS["small"]) == PRESETS["small"]


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("optimizer.learning_rate=3e-4", lambda c: c.optimizer.learning_rate == 3e-4),
        (" encoder.width = 64 ", lambda c: c.encoder.width == 64),
        ("use_states=false", lambda c: c.use_states is False),
        ("steps=2_000", lambda c: c.steps == 2_000),
    ],
)
def test_settings_are_toml_values(setting, read):
    base = FinetuneConfig() if "use_states" in setting else PretrainConfig()
    assert read(resolve(base, None, [setting]))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["stpes=5"], ["stpes is not a setting", "did you mean steps?"]),
        (["masking.dna_raet=0.1"], ["masking.dna_raet is not a setting", "did you mean masking.dna_rate"]),
        (["learning_rate=1"], ["learning_rate is not a setting", "did you mean optimizer.learning_rate?"]),
        (["nonsense=1"], ["nonsense is not a setting", "encoder.token_bp", "seed"]),
        (["masking.dna_rate=high"], ["masking.dna_rate = 'high': ", "number"]),
        (["masking.dna_rate=1"], ["masking.dna_rate = 1: ", "less than 1", "masking.dna_rate: share of tokens"]),
        (["steps=0"], ["steps = 0: ", "greater than or equal to 1"]),
        (["steps=1.5"], ["steps = 1.5: ", "integer"]),
        (["encoder=5"], ["encoder = 5: "]),
        (["steps.x=5"], ["steps = {'x': 5}: "]),
        (["encoder.token_bp=7"], ["the settings: token_bp = 7 does not divide 50"]),
        (["encoder.token_bp=0"], ["encoder.token_bp = 0: "]),
        (["encoder.num_heads=0"], ["encoder.num_heads = 0: "]),
        (["encoder.num_heads=3"], ["width = 128 must be num_heads = 3 times an even number"]),
        (["encoder.width=-128"], ["encoder.width = -128: "]),
        (["encoder.stem_kernel_bp=18"], ["stem_kernel_bp = 18 must be odd"]),
        (["window_bp=1100"], ["window_bp = 1100 is not a multiple of 200"]),
        (["window_bp=0"], ["window_bp = 0: "]),
        (["optimizer.schedule=linear"], ["optimizer.schedule = 'linear': ", "cosine", "wsd"]),
        (["parallel=dp"], ["parallel = 'dp': ", "ddp", "fsdp"]),
        (["checkpoint_minutes=-1"], ["checkpoint_minutes = -1: "]),
        (["optimizer.learning_rate=inf"], ["optimizer.learning_rate = inf: "]),
        (["optimizer.learning_rate=nan"], ["optimizer.learning_rate = nan: "]),
        (["seed=-1"], ["seed = -1: "]),
        (["steps=0", "seed=-1", "nonsense=1"], ["steps = 0", "seed = -1", "nonsense is not a setting"]),
        (["steps"], ["setting 'steps' has no '='", "--set masking.dna_rate=0.2"]),
        (["=5"], ["is not a setting"]),
    ],
)
def test_faulty_settings_say_what_is_wrong(settings, parts):
    with pytest.raises(EbertError) as caught:
        resolve(PretrainConfig(global_batch=16), None, settings)
    told = f"{caught.value.message} {caught.value.hint}"
    for part in parts:
        assert part in told
    assert caught.value.hint


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["context_bp=300"], "context_bp = 300 must be a multiple of 200"),
        (["context_bp=-200"], "context_bp = -200: "),
        (["window_bp=1000", "context_bp=400"], "and leave 400 bp of the window"),
        (["fusion.encoder_bp=300"], "fusion.encoder_bp = 300 must be a multiple of 200 that divides window_bp = 1600"),
        (["fusion.encoder_bp=600"], "fusion.encoder_bp = 600 must be a multiple of 200 that divides window_bp = 1600"),
    ],
)
def test_faulty_settings_of_finetuning(settings, part):
    with pytest.raises(EbertError) as caught:
        resolve(FinetuneConfig(), None, settings)
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("steps = 0\nseed = -1\n[encoder]\nwitdh = 5\n", ["steps = 0", "seed = -1", "encoder.witdh is not a setting"]),
        ("steps = 5\nsteps = 6\n", ["is not valid TOML", "line 2"]),
        ("steps = \n", ["is not valid TOML", "line 1"]),
        (b"\xff\xfe", ["is not text"]),
        ('steps = "many"\n', ["steps = 'many'"]),
    ],
)
def test_a_faulty_file_is_named(tmp_path, text, parts):
    path = write(tmp_path, text)
    with pytest.raises(EbertError) as caught:
        resolve(PretrainConfig(), path)
    assert str(path) in caught.value.message
    for part in parts:
        assert part in caught.value.message
    assert caught.value.hint


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        resolve(PretrainConfig(), tmp_path / "x.toml")


def test_a_whole_preset_can_be_written_as_toml(tmp_path):
    lines = []

    def walk(values, prefix=""):
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
                lines.append(f"{prefix}{name} = {shown}\n")

    walk(PRESETS["base"].model_dump())
    text = "".join(lines)
    tomllib.loads(text)
    assert resolve(PretrainConfig(), write(tmp_path, text)) == PRESETS["base"]


def test_the_page_of_settings_lists_each_with_its_defaults():
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")

    def shown(config, key):
        value = functools.reduce(getattr, key.split("."), config)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
        if isinstance(value, tuple):
            return f"{len(value)} names"
        if value is None:
            return "auto"
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"

    rows = [line for line in page.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{key}` | {' | '.join(shown(preset, key) for preset in PRESETS.values())} | {what} |"
        for key, what in settings_of(PretrainConfig).items()
    ]
    finetuning = FinetuneConfig(), finetune_defaults(PRESETS["tiny"].encoder, motifs=True)
    expected += [
        f"| `{key}` | {' | '.join(shown(each, key) for each in finetuning)} | {what} |"
        for key, what in settings_of(FinetuneConfig).items()
    ]
    assert rows == expected


def test_names_may_be_typed_with_commas():
    found = resolve(FinetuneConfig(), settings=["features.expression=CTCF, MAX", 'features.motifs=["SP1"]'])
    assert (found.features.expression, found.features.motifs) == (("CTCF", "MAX"), ("SP1",))
    assert FinetuneConfig.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("typed", "known"), [("auto", None), ("true", True), ("false", False)])
def test_a_switch_may_be_left_to_the_program(typed, known):
    once = resolve(FinetuneConfig(), settings=["features.other_states=true", f"features.other_states={typed}"])
    assert once.features.other_states is known


def test_what_belongs_together_may_come_from_a_file_and_from_settings(tmp_path):
    toml = tmp_path / "mine.toml"
    toml.write_text("window_bp = 3200\ncontext_bp = 800\n")
    base = finetune_defaults(PRESETS["tiny"].encoder, motifs=True)
    assert resolve(base, toml, ["trees=0"]).context_bp == 800
    with pytest.raises(EbertError, match=r"mine\.toml: trees, .* take 1200 bp .* context_bp is 800"):
        resolve(base, toml, ["steps=5"])
    with pytest.raises(EbertError, match=r"the settings: .*context_bp is 600"):
        resolve(base, None, ["context_bp=600"])
