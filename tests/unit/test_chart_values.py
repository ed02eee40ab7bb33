"""The chart's values: one source for its schema and its defaults."""

from __future__ import annotations

from slipway import chart, release


def test_the_committed_schema_is_the_generated_one() -> None:
    assert chart.SCHEMA.read_text() == chart.schema(), "run: python -m slipway.chart"


def test_defaults_of_the_chart_and_of_the_release_file_are_the_same() -> None:
    file = chart.CHART / "values.yaml"
    values = release.parse_yaml(file.read_text(), file)
    assert release.Rollout.model_validate(values["rollout"]) == release.Rollout()
    assert chart.Serving.model_validate(values["serving"])
    assert set(values) == {"rollout", "serving"}, "what a release pins has no default"
