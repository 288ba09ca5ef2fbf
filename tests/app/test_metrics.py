"""What Prometheus reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import metrics as module
from app.metrics import COUNTERS, Metrics


@pytest.fixture
def metrics():
    return Metrics()


def samples(metrics):
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_counters_follow_telemetry(metrics):
    for count in (3, 10):
        metrics.add({"from": "worker", "frames_painted": count, "epochs_replaced": 1})
    assert samples(metrics)["phosphene_frames_painted_total",] == 10
    assert samples(metrics)["phosphene_epochs_replaced_total",] == 1


def test_counters_go_on_when_a_child_begins_again(metrics):
    for count in (10, 4, 6):
        metrics.add({"from": "acquisition", "samples_in": count})
    assert samples(metrics)["phosphene_samples_in_total",] == 16


def test_latencies_are_in_seconds(metrics):
    metrics.add({"from": "server", "drawn_ms": [450.0, 700.0]})
    metrics.add({"from": "worker", "painted_ms": [90.0]})
    found = samples(metrics)
    assert found["phosphene_drawn_seconds_count",] == 2
    assert found["phosphene_drawn_seconds_sum",] == pytest.approx(1.15)
    assert found["phosphene_drawn_seconds_bucket", "0.5"] == 1
    assert found["phosphene_painted_seconds_bucket", "0.1"] == 1


def test_each_stage_of_first_use_has_its_histogram(metrics):
    metrics.add({"from": "server", "stages_ms": {"encoded": [12.0, 30.0], "drawn": []}})
    found = samples(metrics)
    assert found["phosphene_stage_seconds_count", "encoded"] == 2
    assert found["phosphene_stage_seconds_bucket", "0.02", "encoded"] == 1
    assert ("phosphene_stage_seconds_count", "drawn") not in found


def test_restarts_are_counted_by_child(metrics):
    for restarts in (0, 1, 1, 3):
        children = {"worker": {"restarts": restarts}, "server": {"restarts": 0}}
        metrics.add({"from": "supervisor", "children": children})
    assert samples(metrics)["phosphene_restarts_total", "worker"] == 3
    assert samples(metrics)["phosphene_restarts_total", "server"] == 0


def test_a_server_that_begins_again_learns_of_earlier_restarts(metrics):
    metrics.add({"from": "supervisor", "children": {"server": {"restarts": 2}}})
    assert samples(metrics)["phosphene_restarts_total", "server"] == 2


def test_gauges_hold_the_newest_value(metrics):
    for viewers in (3, 1):
        metrics.add({"from": "server", "viewers": viewers})
    metrics.add({"from": "acquisition", "fidelity": 0.75})
    metrics.add({"from": "acquisition", "fidelity": None})
    assert samples(metrics)["phosphene_viewers",] == 1
    assert samples(metrics)["phosphene_montage_fidelity",] == 0.75


def test_two_sessions_in_one_process_do_not_share_metrics(metrics):
    metrics.add({"frames_sent": 5})
    assert samples(Metrics())["phosphene_frames_sent_total",] == 0


def test_the_documentation_names_every_metric(metrics):
    metrics.add({"children": {"worker": {"restarts": 0}}})
    families = text_string_to_metric_families(metrics.text().decode())
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in families
    }
    documented = {line.split()[0].split("{")[0] for line in module.__doc__.splitlines()[2:] if line}
    assert names == documented
    assert len(names) == len(COUNTERS) + 6
