"""The built-in state models, a user's own, and how a model is told from the names in the files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.epigenome.state_models import (
    BUILT_IN,
    MAX_STATES,
    State,
    StateModel,
    detect_state_model,
    load_state_model,
)
from ebert_core.errors import EbertError, InputError

# From the models' own tables: states, number of the first, and a few (number, name, colour) along each.
KNOWN = {
    "roadmap15": (15, 1, [(1, "TssA", "#ff0000"), (8, "ZNF/Rpts", "#66cdaa"), (12, "EnhBiv", "#bdb76b")]),
    "roadmap18": (18, 1, [(4, "TssFlnkD", "#ff4500"), (11, "EnhWk", "#ffff00"), (17, "ReprPCWk", "#c0c0c0")]),
    "roadmap25": (25, 1, [(5, "Tx5'", "#008000"), (19, "DNase", "#ffff66"), (23, "PromBiv", "#7030a0")]),
    "ideas20": (20, 0, [(0, "Quies", None), (10, "TssA", None), (19, "Enh/ReprPC", None)]),
}
LAST = {"roadmap15": "15_Quies", "roadmap18": "18_Quies", "roadmap25": "25_Quies", "ideas20": "19_Enh/ReprPC"}


def test_all_built_in_models_are_known_here():
    assert set(BUILT_IN) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_counts_numbers_names_and_colours(name):
    model = BUILT_IN[name]
    count, first, samples = KNOWN[name]
    assert len(model.states) == count
    assert [state.number for state in model.states] == list(range(first, first + count))
    assert len({state.name for state in model.states}) == count
    assert len({state.label for state in model.states}) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", state.color) for state in model.states)
    assert model.states[-1].label == LAST[name]
    for number, label, color in samples:
        state = model.states[number - first]
        assert (state.number, state.name) == (number, label)
        assert color in (None, state.color)


@pytest.mark.parametrize("model", BUILT_IN.values(), ids=lambda model: model.name)
def test_every_spelling_of_a_state_has_its_code(model):
    for code, state in enumerate(model.states, start=1):
        for text in (state.label, state.name, f"E{state.number}", f"U{state.number}", str(state.number)):
            assert model.code_of(text) == code
    for text in ("", "TssB", "1_TssB", "E99", "26", "1_", "_TssA", "tssa", "-1"):
        assert model.code_of(text) is None


def test_ideas_counts_from_zero():
    model = BUILT_IN["ideas20"]
    assert model.code_of("0_Quies") == model.code_of("0") == 1
    assert model.code_of("19") == 20
    assert model.code_of("20") is None


@pytest.mark.parametrize("model", BUILT_IN.values(), ids=lambda model: model.name)
def test_json_round_trip(model):
    assert StateModel.from_json(model.to_json()) == model


@pytest.mark.parametrize("model", BUILT_IN.values(), ids=lambda model: model.name)
def test_a_model_is_told_from_its_own_labels(model):
    assert detect_state_model([state.label for state in model.states], []) == model


@given(st.sampled_from(list(BUILT_IN.values())), st.data())
def test_detection_never_picks_a_model_that_lacks_a_name(model, data):
    labels = data.draw(st.lists(st.sampled_from([state.label for state in model.states]), min_size=1))
    fitting = [
        other for other in BUILT_IN.values() if all(label in {s.label for s in other.states} for label in labels)
    ]
    if fitting == [model]:
        assert detect_state_model(labels, []) == model
    else:
        with pytest.raises(EbertError, match=f"fit .*{model.name}"):
            detect_state_model(labels, [])


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        (["1_TssA"], ["E116_15_coreMarks_mnemonics.bed.gz"], "roadmap15"),
        (["1_TssA"], ["E116_18_core_K27ac_mnemonics.bed.gz"], "roadmap18"),
        (["1_TssA"], ["E116_25_imputed12marks_mnemonics.bed.gz"], "roadmap25"),
        ([f"E{i}" for i in range(1, 16)], ["E116_15_coreMarks_segments.bed.gz"], "roadmap15"),
        (["E1", "E18"], ["E116_18_core_K27ac_segments.bed.gz"], "roadmap18"),
        (["7"], ["x_25_imputed12marks_stateno.bed"], "roadmap25"),
        (["E25"], [], "roadmap25"),
        (["0"], [], "ideas20"),
        (["0_Quies", "3_HetWk"], [], "ideas20"),
        (["1_TssA", "18_Quies"], ["E116_15_misnamed.bed"], "roadmap18"),
    ],
)
def test_bare_numbers_need_the_files_names(names, files, expected):
    assert detect_state_model(names, files).name == expected


@pytest.mark.parametrize(
    ("names", "files"),
    [(["E1", "E7"], ["K562_segments.bed"]), (["1_TssA"], []), (["E1"], ["E116_15_a.bed", "E117_18_a.bed"])],
)
def test_an_ambiguous_alphabet_names_the_choices(names, files):
    with pytest.raises(EbertError, match="fit roadmap15, roadmap18") as caught:
        detect_state_model(names, files)
    assert "--state-model" in caught.value.hint


@pytest.mark.parametrize(
    "names", [["Active", "Quiet"], ["E26"], ["1_TssA", "1_Active"], [""], ["2_TssAFlnk", "18_Quies"]]
)
def test_an_unknown_alphabet_names_the_way_out(names):
    with pytest.raises(EbertError, match="fit no known state model") as caught:
        detect_state_model(names, [])
    assert "--state-model" in caught.value.hint


def write(tmp_path, text):
    path = tmp_path / "mine.tsv"
    path.write_text(text)
    return path


def test_a_model_of_ones_own(tmp_path):
    path = write(tmp_path, "number\tname\tcolor\n3\tActive\t#FF0000\n7\tQuiet\t\n")
    model = load_state_model(str(path))
    assert model.name == "mine"
    assert model.states[0] == State(3, "Active", "#ff0000")
    assert model.states[1].number == 7
    assert re.fullmatch("#[0-9a-f]{6}", model.states[1].color)
    assert [model.code_of(text) for text in ("3_Active", "Quiet", "E7", "3", "1", "2")] == [1, 2, 2, 1, None, None]
    assert load_state_model(str(write(tmp_path, "name\tnumber\nOnly\t1\n"))).states[0].name == "Only"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_model_by_name(name):
    assert load_state_model(name) is BUILT_IN[name]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("number\tname\n1\tA\nx\tB\n", 3, "number is 'x', expected a whole number"),
        ("number\tname\n²\tA\n", 2, "number is '²', expected a whole number"),
        ("number\tname\n-1\tA\n", 2, "number is '-1'"),
        ("number\tname\tcolor\n1\tA\tred\n", 2, "color is 'red', expected #rrggbb"),
        ("number\tname\n1\tA\n1\tB\n", 3, "state 1 B is given twice"),
        ("number\tname\n1\tA\n2\tA\n", 3, "state 2 A is given twice"),
        ("number\tname\n1\t\n", 2, "has no name in this row"),
        ("name\nA\n", 1, "has no column 'number'"),
        ("number\tname\n", None, "has no rows"),
        ("number\tname\n" + "".join(f"{i}\ts{i}\n" for i in range(MAX_STATES + 1)), None, "has 251 states"),
    ],
)
def test_a_broken_model_of_ones_own(tmp_path, text, line, problem):
    with pytest.raises(InputError) as caught:
        load_state_model(str(write(tmp_path, text)))
    assert caught.value.line == line
    assert problem in caught.value.message
    assert caught.value.hint


def test_the_largest_model_leaves_room_for_the_mask(tmp_path):
    rows = "".join(f"{i}\ts{i}\n" for i in range(MAX_STATES))
    model = load_state_model(str(write(tmp_path, f"number\tname\n{rows}")))
    assert len(model.states) + 1 <= 255


def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(EbertError, match="unknown state model 'roadmap16'") as caught:
        load_state_model("roadmap16")
    assert "roadmap15, roadmap18, roadmap25" in caught.value.hint
