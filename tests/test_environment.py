import json

from memedynamics import environment


def test_versions_are_recorded_once_and_changes_named(tmp_path):
    file = tmp_path / "study" / "environment.json"
    assert environment.changes(file) == []
    environment.record(file)
    assert json.loads(file.read_text())["torch"].startswith("2.13.0")
    assert environment.changes(file) == []
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trl": "0.9"}))
    environment.record(file)
    assert environment.changes(file) == [f"trl was 0.9 when this study began, now {environment.installed()['trl']}"]
