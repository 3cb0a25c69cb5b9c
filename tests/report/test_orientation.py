import math

import pandas as pd

from visa.paths import notebooks_root
from visa.report.collect import expected_cost, machine_facts, notebook_facts


def test_every_notebook_states_question_input_output_and_cost():
    facts = notebook_facts(notebooks_root())
    assert list(facts.index)[:2] == ["00_start", "01_data"] and facts["title"]["01_data"] == "1 · Data"
    assert (facts != "").all(axis=None)
    assert not facts["question"].str.contains(r"\\", regex=False).any()


def test_costs_are_means_of_earlier_runs_times_what_is_planned():
    stages = pd.DataFrame({"notebook": ["03_pretrain", "03_pretrain", "01_data"], "seconds": [30.0, 90.0, 6.0]})
    cost = expected_cost(["01_data", "03_pretrain", "03_pretrain", "03_pretrain", "04_score"], stages)
    assert cost.loc["03_pretrain"].tolist() == [3, 60.0, 3.0]
    assert cost.loc["01_data", "minutes"] == 0.1
    assert cost.loc["04_score", "runs"] == 1 and math.isnan(cost.loc["04_score", "minutes"])


def test_nothing_was_run_yet():
    cost = expected_cost(["01_data"], pd.DataFrame(columns=["notebook", "seconds"]))
    assert cost.loc["01_data", "runs"] == 1 and cost["minutes"].isna().all()


def test_the_machine_is_described():
    facts = machine_facts()
    assert facts["memory"].endswith("GiB") and float(facts["memory"].split()[0]) > 0
    assert "cores" in facts["processor"] and facts["PyTorch"]
