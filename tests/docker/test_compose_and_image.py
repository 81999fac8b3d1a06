"""The container files: complete, non-root, no secret, loopback only."""

import re
import tomllib

import pytest
import yaml


@pytest.fixture(scope="module")
def compose(root):
    return yaml.safe_load((root / "docker" / "compose.yaml").read_text())


def test_every_image_has_a_version(compose):
    for name, service in compose["services"].items():
        assert re.search(r":[^:}]+}?$", service["image"]), name
        assert not service["image"].endswith("latest"), name


def test_ports_are_published_on_loopback_only(compose):
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(published) >= 5
    assert all(str(port).startswith("127.0.0.1:") for port in published)


def test_passwords_come_from_the_environment(root, compose):
    text = (root / "docker" / "compose.yaml").read_text()
    for line in text.splitlines():
        if re.search(r"(PASSWORD|SECRET|ACCESS_KEY)", line):
            assert "${" in line, line
    example = (root / "docker" / "example.env").read_text()
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+)", text)) - {"IMAGE"}
    assert {line.split("=")[0] for line in example.splitlines() if "=" in line} == wanted
    assert all(line.endswith("=") for line in example.splitlines() if "=" in line)


def test_settings_of_the_stack_are_settings_the_program_knows(compose):
    from coda.settings import VARIABLES, read_settings

    given = compose["x-coda"]["environment"]
    assert {name for name in given if name.startswith("CODA_")} <= set(VARIABLES.values())
    assert read_settings({key: str(value) for key, value in given.items()}).pushgateway == "pushgateway:9091"


def test_the_trigger_is_told_where_its_pages_are_and_whom_to_tell(compose):
    from coda.trigger import receiver

    given = compose["services"]["trigger"]["environment"]
    assert {receiver.SITE, receiver.URL, receiver.KEY, receiver.ON} <= set(given)
    assert set(compose["x-coda"]["environment"]) <= set(given), "and all that every service is told"
    unset = {name: re.sub(r"\$\{\w+(?::-([^}]*))?\}", r"\1", value) for name, value in given.items()}
    assert receiver.read_site_url(unset) == "http://127.0.0.1:8080"
    assert receiver.read_receiver(unset) is None, "nobody is told where nobody is named"


def test_prometheus_tells_the_alertmanager_which_finds_an_address_for_each_tier(root, compose):
    configured = yaml.safe_load((root / "docker/prometheus/prometheus.yml").read_text())
    [manager] = configured["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    routed = yaml.safe_load((root / "docker/alertmanager/alertmanager.yml").read_text())
    files = {chat["api_url_file"] for receiver in routed["receivers"] for chat in receiver["slack_configs"]}
    given = compose["services"]["alertmanager"]["configs"]
    assert {item["target"] for item in given} == files
    assert {item["source"] for item in given} <= set(compose["configs"])


def test_our_services_have_no_rights_to_spare(compose):
    ours = compose["x-coda"]
    assert ours["cap_drop"] == ["ALL"]
    assert ours["read_only"] is True
    assert "healthcheck" in compose["services"]["trigger"]


def test_files_that_compose_mounts_exist(root, compose):
    mounted = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    local = [volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert local
    for path in local:
        assert (root / "docker" / path).is_dir(), path


def test_the_image_is_not_root_and_takes_nothing_of_the_site(root):
    text = (root / "docker" / "Dockerfile").read_text()
    shipped = text[text.rindex("\nFROM ") :]
    assert "USER 1000:1000" in shipped
    assert "context" not in shipped
    assert "CERT" not in shipped
    ignored = (root / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "the build context is a list of what is needed, not of what is left out"


def test_the_code_is_installed_with_every_file_that_its_wheel_needs(root):
    """A file that pyproject names, and that is missing, ends the build."""
    text = (root / "docker" / "Dockerfile").read_text()
    before = text[: text.index("pip install --no-deps --no-index --no-build-isolation .")]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    for name in {name for names in data.values() for name in names}:
        assert re.search(rf"^COPY {re.escape(name.split('*')[0])} ", before, re.MULTILINE), name
