"""What the environment tells boto3: checked before it is used, and named when boto3 stumbles over it.

boto3 takes its settings from some forty variables and two files, and says by some forty classes of errors what it
cannot use. Only those of a service that is away are worth another try; all others are the operator's.
"""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botocore import exceptions as aws

from coda.errors import ConfigError, Problem, raise_if_any
from coda.settings import without_secrets

BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Variables with the file of certificates that boto3 trusts; the first that is set."""

OUTAGES = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    aws.MetadataRetrievalError,
    aws.ChecksumError,
    aws.FlexibleChecksumError,
)
"""Roots of what botocore raises when a service is away or an answer is damaged on its way."""

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_FILES = "AWS_CONFIG_FILE (~/.aws/config) and AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials)"
_CERTIFICATE = re.compile(r"certificate|WRONG_VERSION_NUMBER|unknown protocol", re.IGNORECASE)

_NAMED: tuple[tuple[type[aws.BotoCoreError], str, str], ...] = (
    (aws.ProfileNotFound, "AWS_PROFILE", "Unset AWS_PROFILE and AWS_DEFAULT_PROFILE, or name a profile that is there."),
    (aws.ConfigParseError, _FILES, "Correct the file, or let the variable name another."),
    (aws.ConfigNotFound, _FILES, "Correct the variable."),
    (aws.InvalidConfigError, _FILES, "Correct the profile in ~/.aws/config, or set AWS_ACCESS_KEY_ID and its secret."),
    (aws.SSOError, "the AWS profile's sign-on", "Run `aws sso login` and start again."),
    (aws.LoginError, "the AWS profile's sign-on", "Run `aws login` and start again."),
    (aws.TokenRetrievalError, "the AWS profile's sign-on", "Run `aws sso login` and start again."),
    (
        aws.ParamValidationError, "the name of a bucket or of an object",
        "Correct CODA_LANDING, CODA_PLATFORM, CODA_DATA_REMOTE or CODA_CHECKPOINTS (docs/settings.md).",
    ),
    (aws.InvalidRegionError, "AWS_DEFAULT_REGION", "Set it to a region's name, for example us-east-1."),
    (aws.UnknownRegionError, "AWS_DEFAULT_REGION", "Set it to a region's name, for example us-east-1."),
    (aws.BaseEndpointResolverError, "AWS_DEFAULT_REGION", "Set it to a region's name, for example us-east-1."),
    (aws.EndpointProviderError, "AWS_ENDPOINT_URL_S3", "Set it to http://host:port or https://host."),
    (aws.InvalidDefaultsMode, "AWS_DEFAULTS_MODE", "Unset it."),
    (aws.InvalidRetryConfigurationError, "AWS_RETRY_MODE and AWS_MAX_ATTEMPTS", "Unset them."),
    (aws.InvalidProxiesConfigError, "HTTP_PROXY and HTTPS_PROXY", "Correct or unset them."),
)  # fmt: skip
"""Root of a family of errors -> the setting behind it, and what to do."""


def require_usable() -> None:
    """Check what boto3 would send or open as it is: keys, region, and the files that variables name.

    A key from a file that ends in a line break, as `kubectl create secret --from-file` keeps it, cannot be sent.

    Raises:
        ConfigError: All variables that cannot be used, without their values.
    """
    problems = [
        Problem(name, "blanks or a line break in it", "a key as it was issued", f"Set {name} again, without them.")
        for name in _KEYS
        if re.search(r"\s|[\x00-\x1f\x7f]", os.environ.get(name, ""))
    ]
    problems += [_absent(name, Path(os.environ[name])) for name in BUNDLES if _is_absent(os.environ.get(name, ""))]
    raise_if_any(ConfigError, "The credentials or settings of the object store cannot be used.", problems)


@contextmanager
def connecting(what: str) -> Iterator[None]:
    """Turn what boto3 raises while it reads its settings and credentials into the operator's error.

    Nothing but settings is read inside the block, so files that are not there and texts that cannot be read are
    settings as well. A service that is away while credentials are fetched from it stays what it is.
    """
    try:
        yield
    except (aws.BotoCoreError, OSError) as error:
        problem = wrong_setting(error)
        if problem is None and not isinstance(error, aws.BotoCoreError | ConnectionError | TimeoutError):
            where = str(getattr(error, "filename", None) or _FILES)
            problem = Problem(
                where, _one_line(error), "a file that boto3 can read", "Correct the setting that names it."
            )
        if problem is None:
            raise
        raise ConfigError(f"The settings of {what} cannot be used.", [problem]) from error
    except (ValueError, KeyError, TypeError) as error:
        remedy = "Correct it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/settings.md)."
        problem = Problem(f"AWS_* variables, {_FILES}", _one_line(error), "settings that boto3 can use", remedy)
        raise ConfigError(f"The settings of {what} cannot be used.", [problem]) from error


def wrong_setting(error: BaseException) -> Problem | None:
    """Return the setting that made boto3 raise this, or none where a service is away or the error is another's."""
    if isinstance(error, aws.SSLError) and _CERTIFICATE.search(str(error)):
        return _distrusted(error)
    if type(error) is aws.HTTPClientError:
        return _unsendable(error)
    if isinstance(error, OUTAGES) or isinstance(error.__context__, aws.MetadataRetrievalError):
        return None
    if isinstance(error, aws.BotoCoreError):
        return _named(error)
    if isinstance(error, OSError):
        # a token or a file of credentials is read again whenever it is renewed
        name = next((name for name, value in _aws_variables().items() if value == str(error.filename)), None)
        return _absent(name, Path(str(error.filename))) if name else None
    return None


def _named(error: aws.BotoCoreError) -> Problem:
    found = f"{type(error).__name__}: {_one_line(error)}"
    for kind, where, remedy in _NAMED:
        if isinstance(error, kind):
            return Problem(where, found, "a setting that boto3 can use", remedy)
    remedy = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an AWS profile or role (docs/settings.md)."
    return Problem("the AWS_* variables", found, "usable credentials and names", remedy)


def _unsendable(error: aws.HTTPClientError) -> Problem | None:
    """Return the setting behind an error that botocore's HTTP client did not expect, or none where the line broke."""
    inner = error.kwargs.get("error")
    if isinstance(inner, ssl.SSLError) or not isinstance(inner, ValueError | OSError):
        return None
    if isinstance(inner, ConnectionError | TimeoutError):
        return None
    bundle = next((name for name in BUNDLES if os.environ.get(name)), None)
    where = bundle if bundle and isinstance(inner, OSError) else "the AWS_* and *_PROXY variables"
    found = f"{type(inner).__name__}: {_one_line(inner)}"
    return Problem(where, found, "settings that a request can be made of", "Correct the variable (docs/settings.md).")


def _distrusted(error: aws.SSLError) -> Problem:
    bundle = next((f"{name}={os.environ[name]}" for name in BUNDLES if os.environ.get(name)), "AWS_CA_BUNDLE")
    remedy = "Let AWS_CA_BUNDLE name the file with the certificate of the service's issuer; or correct the endpoint."
    return Problem(bundle, _one_line(error), "a service whose certificate is trusted", remedy)


def _is_absent(path: str) -> bool:
    return bool(path) and not Path(path).exists()


def _absent(name: str, path: Path) -> Problem:
    found = f"{path}, which cannot be read" if path.exists() else f"{path}, which is not there"
    return Problem(name, found, "a file", f"Correct or unset {name}.")


def _aws_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _one_line(value: object) -> str:
    # cleaned before it is cut: half a secret would not be recognised
    return without_secrets(" ".join(str(value).split()))[:300]
