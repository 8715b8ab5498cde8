"""Runs elex-model (The Washington Post) on one update and prints its estimates of the margin as JSON.

Reads a CSV table of units from standard input, with the columns that elex-model knows and a column `is_in`.
"""

import json
import sys
import time
import warnings

import pandas as pd
from elexmodel.client import ModelClient

warnings.filterwarnings("ignore")
ELECTION = "benchmark_USA_G"
LEVELS = [0.9, 0.99]
NATION = ["nation"]

units = pd.read_csv(
    sys.stdin, dtype={"geographic_unit_fips": str, "county_fips": str, "county_classification": str, "region": str}
)
features = json.loads(sys.argv[1])
config = {
    ELECTION: [
        {
            "office": "P",
            "states": sorted(units.postal_code.unique()),
            "geographic_unit_types": ["county"],
            "features": list(features),
            "aggregates": ["postal_code", "county_fips", "county_classification", "unit"],
            "fixed_effect": ["postal_code", "county_classification", "region"],
            "baseline_pointer": {"dem": "dem", "gop": "gop", "turnout": "turnout"},
        }
    ]
}
results = ["results_dem", "results_gop", "results_turnout"]
current = units[["postal_code", "geographic_unit_fips", *results]].copy()
current["percent_expected_vote"] = units.is_in * 100
current.loc[units.is_in == 0, results] = 0
known = units.drop(columns=[*results, "is_in"])
known["nation"] = "US"

started = time.monotonic()
client = ModelClient()
estimates = client.get_estimates(
    current,
    ELECTION,
    "P",
    ["margin"],
    prediction_intervals=LEVELS,
    percent_reporting_threshold=100,
    geographic_unit_type="county",
    raw_config=config,
    preprocessed_data=known,
    features=["baseline_normalized_margin", *features],
    aggregates=["postal_code"],
    fixed_effects={"county_classification": ["all"], "region": ["all"]},
    pi_method="bootstrap",
    model_parameters={"seed": 1},
    save_output=[],
)
seconds = time.monotonic() - started

handler, model = client.results_handler, client.model
of = (handler.reporting_units, handler.nonreporting_units, handler.unexpected_units)
nation = {"middle": float(model.get_aggregate_predictions(*of, NATION, "margin").pred_margin.iloc[0])}
for level in LEVELS:
    interval = model.get_aggregate_prediction_intervals(*of, NATION, level, None, "margin")
    nation[str(level)] = [float(interval.lower[0][0]), float(interval.upper[0][0])]


def state(row):
    return {"middle": row.pred_margin, **{str(a): [row[f"lower_{a}_margin"], row[f"upper_{a}_margin"]] for a in LEVELS}}


states = {row.postal_code: state(row) for _, row in estimates["state_data"].iterrows()}
print(json.dumps({"seconds": seconds, "nation": nation, "states": states}))
