"""CHES by hand, and where it stands."""

import numpy as np
import polars as pl
import pytest

from memedynamics.score_tables import Layout, Measured, responses

ROWS = pl.DataFrame(
    {
        "probe_kind": ["base_sample", "base_sample", "greedy"], "dataset": "d", "split": "val", "id": "a",
        "sample": [0, 1, 0], "chosen_sample": [0, 0, None], "rejected_sample": [1, 1, None],
    }
)  # fmt: skip
COLUMNS = ("logp", "ref_logp", "kl_forward", "kl_reverse", "entropy", "acceptance", "rank")


def test_ches_by_hand():
    """S+ = (2, 4) over 2 tokens, S− = (3, 3) over 3: 6 + 12 − (4 + 16) = −2.

    Divided by their tokens (1, 2) and (1, 1): 1 + 2 − (1 + 4) = −2 too; with S− = (6, 3) over 3, (2, 1): 12 + 12 − 20
    = 4 and 2 + 2 − 5 = −1. The greedy path is the chosen text under another kind: no CHES there.
    """
    layout = Layout(ROWS, np.array([0, 1, 0]), np.array([2, 3]), np.zeros(5), np.array(["end"] * 5), np.zeros(2, bool))
    for minus, plain, normalised in (((3, 3), -2, -2), ((6, 3), 4, -1)):
        half = np.full(2, 0.5)
        measured = Measured({c: np.zeros(5) for c in COLUMNS}, half, half, half, np.array([(2, 4), minus], float))
        found = responses(layout, [measured], [1.0])
        assert found["ches"].to_list() == [plain, None, None]
        assert found["ches_normalised"].to_list() == [pytest.approx(normalised), None, None]
