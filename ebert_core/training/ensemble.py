"""Fine-tuning an ensemble: the same run from several seeds, then one model whose logits are their mean.

Each member is a run of its own in the ensemble's working folder, with its own resume points, so a stop costs no more
than it costs a single run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ebert_core.artifacts import MODEL_FORMAT, read_json, read_manifest, write_json
from ebert_core.config import FinetuneConfig
from ebert_core.data.task_features import TrackSpec
from ebert_core.inference.ensemble import mean_score
from ebert_core.inference.packed import packed
from ebert_core.io.motifs import Motif
from ebert_core.model.checkpoint import read_model, save
from ebert_core.training.binding_validation import BindingValidation
from ebert_core.training.finetune import Start, finetune, fingerprint_of
from ebert_core.training.finetune_data import FinetuneData
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import JOURNAL_FILE, Surroundings
from ebert_core.training.resume import refuse_other_run, resume_points
from ebert_core.training.run_folder import ENSEMBLE_FILE, RunTarget, finish_run, open_run


def finetune_ensemble(
    data: FinetuneData,
    config: FinetuneConfig,
    start: Start,
    motifs: Sequence[Motif],
    target: RunTarget,
    around: Surroundings,
) -> Path:
    """Fine-tune `config.members` models of seeds `config.seed`, `config.seed` + 1, ... and publish them as one.

    Args, returns, raises: as `finetune`. The output holds one file of weights per member; its journal holds every
    member's events, with the member's number.
    """
    tracks = TrackSpec.choose(data.dataset, config.features, data.held_out_cells, states=config.use_states)
    with open_run(target, "model") as working:
        _require_same(working, fingerprint_of(data, config, start(config.seed)[1], motifs, tracks))
        folders = [working / f"member-{number + 1}" for number in range(config.members)]
        for folder in folders:
            if folder.exists():  # what cannot be read shows before the others are trained, not after
                read_manifest(folder, "model", MODEL_FORMAT)
        for number, folder in enumerate(folders):
            one = config.model_copy(update={"members": 1, "seed": config.seed + number})
            place = RunTarget(folder, resume=target.resume)
            if not folder.exists():
                around.reporter.log(f"member {number + 1} of {config.members}, seed {one.seed}")
                finetune(data, one, start, motifs, place, around)
        _write_journal(folders, working / JOURNAL_FILE)
        _publish(folders, data, config, working, target, around)
    return target.output


def _require_same(working: Path, fingerprint: str) -> None:
    """Refuse to go on with members of another run, or with a single run; note what this one is."""
    path = working / ENSEMBLE_FILE
    known = read_json(path)["fingerprint"] == fingerprint if path.exists() else not resume_points(working)
    refuse_other_run(working, same=known)
    write_json(path, {"fingerprint": fingerprint})


def _write_journal(folders: Sequence[Path], path: Path) -> None:
    rows = [
        json.dumps({"member": number, **event})
        for number, folder in enumerate(folders, start=1)
        for event in read_journal(folder / JOURNAL_FILE)
    ]
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _publish(
    folders: Sequence[Path],
    data: FinetuneData,
    config: FinetuneConfig,
    working: Path,
    target: RunTarget,
    around: Surroundings,
) -> None:
    """Calibrate the mean of the members' logits on the validation part, and write the model."""
    found = [read_model(folder) for folder in folders]
    members = [member.to(around.device.device) for (member,), _, _ in found]
    answering = [packed(member, around.device) for member in members]
    manifests = [manifest for _, _, manifest in found]
    tracks = TrackSpec.from_json(manifests[0]["features"]["tracks"])
    validation = BindingValidation(data, config, tracks)
    found_by_all = validation.whole(mean_score(answering, around.device, both_strands=True))
    calibrations, measures = validation.calibrate(found_by_all)
    made = ("kind", "format_version", "ebert_version", "created_utc", "command", "files")
    body = {key: value for key, value in manifests[0].items() if key not in made} | {
        "config": config.model_dump(),
        "num_parameters": sum(manifest["num_parameters"] for manifest in manifests),
        "best_step": [manifest["best_step"] for manifest in manifests],
        "validation": measures,
        "validation_of_members": [manifest["validation"] for manifest in manifests],
        "calibration": calibrations,
    }
    if "tree_shares" in body:
        body["tree_shares"] = [manifest["tree_shares"] for manifest in manifests]
    finish_run(working, target, lambda folder: save(folder, "model", members, body))
