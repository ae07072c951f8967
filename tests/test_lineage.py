"""Methods that are made of others: parents, seeds, and what is refused."""

import pytest

from memedynamics import lineage
from memedynamics.errors import InputError
from memedynamics.methods import is_plain
from memedynamics.study import load_study, plain, warnings_of

SEEDS = [4, 7]
STUDY = {
    "study": "s",
    "base_model": {"source": "demo"},
    "datasets": {"p": {"reader": "pictograms"}},
    "in_domain": "p",
    "seeds": SEEDS,
    "adapter": {"r": 4},
}
DPO = {"kind": "dpo", "reference": "parent"}


def study(**methods):
    return load_study(STUDY | {"methods": methods})


def test_a_curriculum_is_one_line_a_method():
    found = study(sft={"kind": "sft"}, then={**DPO, "from": "sft"}, last={"kind": "sft", "from": "then"})
    assert [lineage.parents(method) for method in found.methods.values()] == [[], ["sft"], ["then"]]
    assert plain(found)["methods"]["then"]["from"] == "sft"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"r": 16, "alpha": 32}, {"r": 16}),
        ({"kind": "full", "r": 8}, {"kind": "full"}),
        ({"kind": "prefix", "r": 8}, {"kind": "prefix", "layers": "attention"}),
        ({"kind": "ia3", "alpha": 8}, {"kind": "ia3", "tokens": 4}),
        ({"tokens": 4}, {}),
    ],
)
def test_one_adapter_may_be_written_in_two_ways(first, then):
    """An empty alpha is 2r, and keys of other kinds mean nothing."""
    study(sft={"kind": "sft", "adapter": first}, dpo={**DPO, "from": "sft", "adapter": then})


def test_runs_of_one_seed_are_made_of_runs_of_that_seed():
    """A merge of checkpoints trained elsewhere has one run; one with a training among its parents has all seeds."""
    outside = {"kind": "external", "path": "x"}
    merge = {"kind": "merge", "how": "linear"}
    found = study(
        sft={"kind": "sft"}, a=outside, b=outside,
        apart={**merge, "of": ["a", "b"]}, mixed={**merge, "of": ["a", "sft"]}, again={**merge, "of": ["apart", "a"]},
    )  # fmt: skip
    assert {name: lineage.seeds(found, name) for name in found.methods} == {
        "sft": SEEDS, "a": [0], "b": [0], "apart": [0], "mixed": SEEDS, "again": [0],
    }  # fmt: skip
    assert [lineage.seed_of(found, name, 7) for name in ("sft", "a")] == [7, 0]


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"x": {"kind": "sft", "from": "stf"}, "sft": {"kind": "sft"}}, "methods.x.from: no method 'stf'; .* 'sft'"),
        ({"x": {"kind": "sft", "from": "x"}}, "methods.x.from: a cycle, x → x; break it"),
        (
            {"a": {"kind": "sft", "from": "c"}, "b": {"kind": "sft", "from": "a"}, "c": {"kind": "sft", "from": "b"}},
            "methods.a.from: a cycle, a → b → c → a; break it",
        ),
        ({"m": {"kind": "merge", "how": "linear", "of": ["m", "s"]}, "s": {"kind": "sft"}}, "methods.m.of: a cycle"),
        (
            {
                "m": {"kind": "merge", "how": "linear", "of": ["sfft", "dpo"]},
                "sft": {"kind": "sft"},
                "dpo": {"kind": "dpo"},
            },
            "methods.m.of: no method 'sfft'; .* 'sft'",
        ),
        (
            {"a": {"kind": "sft", "adapter": {"r": 8}}, "b": {"kind": "sft", "from": "a"}},
            r"methods.b.from: a has another adapter \(r, alpha\)",
        ),
        (
            {"a": {"kind": "sft", "adapter": {"alpha": 16}}, "b": {"kind": "sft", "from": "a"}},
            r"methods.b.from: a has another adapter \(alpha\)",
        ),
        (
            {"a": {"kind": "sft", "adapter": {"kind": "rslora", "dropout": 0.1}}, "b": {"kind": "sft", "from": "a"}},
            r"methods.b.from: a has another adapter \(kind, dropout\)",
        ),
        (
            {
                "a": {"kind": "sft", "adapter": {"kind": "prefix", "tokens": 4}},
                "b": {"kind": "sft", "from": "a", "adapter": {"kind": "prefix"}},
            },
            r"methods.b.from: a has another adapter \(tokens\)",
        ),
        (
            {"a": {"kind": "sft", "adapter": {"kind": "full"}}, "b": {"kind": "sft", "from": "a"}},
            "methods.b.from: a is full weights; set adapter.kind to fit",
        ),
        (
            {
                "a": {"kind": "sft", "adapter": {"kind": "prefix"}},
                "b": {"kind": "sft"},
                "m": {"kind": "merge", "how": "ties", "of": ["a", "b"]},
            },
            "methods.m.of: a changes no weight",
        ),
        ({"a": {"kind": "sft"}, "b": {"kind": "dpo", "from": "a"}}, "reference is missing: .* base or parent"),
        ({"a": {"kind": "dpo", "reference": "parent"}}, "reference 'parent' does not fit a dpo method; .* `from`"),
        ({"a": {"kind": "grpo", "backend": "llamafactory"}}, "backend 'llamafactory' does not fit a grpo method"),
        ({"a": {"kind": "dpo", "pairs": "judge"}}, "methods.a.pairs is judge, but the study has no judge"),
        ({"a": {"kind": "grpo", "reward": "model"}}, "methods.a.reward is model, but there is none"),
        ({"a": {"kind": "dpo", "target": "answer"}}, "target 'answer' does not fit a dpo method"),
        (
            {"a": {"kind": "sft"}, "m": {"kind": "merge", "how": "slerp", "of": ["a", "b", "c"]}},
            "of: slerp runs between two methods, 3 are named",
        ),
        (
            {"a": {"kind": "sft"}, "m": {"kind": "merge", "how": "ties", "of": ["a", "b"], "weights": [1]}},
            "weights: 1 for 2 methods",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(methods, words):
    with pytest.raises(InputError, match=words):
        study(**methods)


TIES = {"kind": "merge", "how": "ties", "of": ["a", "b"]}


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ({**TIES, "how": "linear", "weights": [1, -1]}, "methods.m.weights: sum to 0, so linear has no mean"),
        ({**TIES, "weights": [2, -1]}, "m.weights: -1 is negative, which ties cannot take; use task_arithmetic"),
        ({**TIES, "how": "slerp", "weights": [-1, 2]}, "methods.m.weights: -1 is negative, which slerp cannot take"),
    ],
)
def test_weights_without_a_mean_are_refused(merge, words):
    with pytest.raises(InputError, match=words):
        study(a={"kind": "sft"}, b={"kind": "sft"}, m=merge)


def test_sums_need_no_mean():
    merge = {**TIES, "how": "task_arithmetic", "weights": [1, -1]}
    assert study(a={"kind": "sft"}, b={"kind": "sft"}, m=merge).methods["m"].weights == [1, -1]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([["a", "a"]], "merge_path.pairs.0: a path from a to itself; name two methods"),
        ([["a", "b"], ["a", "b"]], "merge_path.pairs.1: a and b are named already; remove one of both"),
        ([["a", "b"], ["b", "a"]], "merge_path.pairs.1: b and a are named already"),
        ([["a", "b__c"]], "merge_path.pairs.0: b__c holds '__', which stands between the two in names of files"),
        ([["a", "d"]], "merge_path.pairs.0: no method 'd'; did you mean"),
    ],
)
def test_paths_that_are_none_are_refused(pairs, words):
    methods = {name: {"kind": "sft"} for name in ("a", "b", "b__c")}
    with pytest.raises(InputError, match=words):
        load_study(STUDY | {"methods": methods, "merge_path": {"pairs": pairs}})


def test_a_method_is_not_proposed_as_its_own_parent():
    with pytest.raises(InputError, match="methods.sft2.from: no method 'sft1'; did you mean 'dpo'"):
        study(dpo={"kind": "dpo"}, sft2={"kind": "sft", "from": "sft1"})
    with pytest.raises(InputError, match="methods.sft2.from: no method 'sft1'; there is no other one"):
        study(sft2={"kind": "sft", "from": "sft1"})


def test_plain_methods_differ_in_the_objective_alone():
    found = study(
        sft={"kind": "sft", "args": {"learning_rate": 1e-4}},
        em={"kind": "em", "objective": "token"},
        fine={"kind": "sft", "target": "groups"},
        then={"kind": "sft", "from": "sft"},
        wide={"kind": "sft", "adapter": {"r": 8}},
        theirs={"kind": "external", "path": "x"},
    )
    assert [name for name, method in found.methods.items() if is_plain(method)] == ["sft", "em"]


def test_departures_of_a_recipe_are_warned_about():
    """A run that begins elsewhere, or learns from something else, is not matched; each line names both keys."""
    methods = {
        "fine": {"kind": "sft", "target": "groups"},
        "then": {"kind": "sft", "from": "fine"},
        "other": {"kind": "sft", "backend": "llamafactory"},
        "plain": {"kind": "sft"},
        "graded": {"kind": "grpo", "reward": "model"},
    }
    found = load_study(STUDY | {"methods": methods, "reward_model": {}})
    assert [line.removeprefix("methods are not matched: ") for line in warnings_of(found)] == [
        "methods.fine.target = 'groups' but preferences hold what the others learn from",
        "methods.then.from = 'fine' but base_model is where the others begin",
        "methods.other.backend = 'llamafactory' but the others are trained by TRL (backend = 'trl')",
        "methods.graded.reward = 'model' but rewards are what the others are graded by",
    ]
