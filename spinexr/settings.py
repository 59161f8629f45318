"""Settings: the only reader of the environment.

Every value is checked when it is read. A variable that starts with SPINEXR_ and is not known is an
error too: a misspelt setting must not be silently without effect.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from spinexr.errors import ConfigurationError

if TYPE_CHECKING:
    from spinexr.domain import DetectPolicy
    from spinexr.imaging.sandbox import SandboxOptions
    from spinexr.inference.engines import EngineOptions

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MEBIBYTE = 1024 * 1024


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {minimum} to {maximum}"
    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError
        return text.lower()

    parse.__doc__ = "one of " + ", ".join(allowed)
    return parse


def _host(text: str) -> str:
    """a host name or address to listen on, such as 127.0.0.1 or 0.0.0.0"""
    if not text or any(c.isspace() or c in "/@" for c in text):
        raise ValueError
    return text


def _path(text: str) -> Path:
    """a folder"""
    if not text or "\0" in text:
        raise ValueError
    return Path(text).expanduser()


def _switch(text: str) -> bool:
    """1 or 0"""
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


def _root_path(text: str) -> str:
    """a path such as /spinexr, without a slash at its end"""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise ValueError
    return text


def _ae_title(text: str) -> str:
    """an AE title: 1 to 16 letters, digits, dashes or _"""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", text):
        raise ValueError
    return text


def _rate(text: str) -> str:
    """a rate such as 600 per minute, or none"""
    if text.lower() == "none" or re.fullmatch(
        r"[1-9]\d{0,6} per (second|minute|hour)", text.lower()
    ):
        return text.lower()
    raise ValueError


def _hosts(text: str) -> tuple[str, ...]:
    """host names such as reader.example, separated by commas"""
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not all(re.fullmatch(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\]", h) for h in hosts):
        raise ValueError
    return hosts


def _origins(text: str) -> tuple[str, ...]:
    """origins such as https://reader.example, separated by commas"""
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
            raise ValueError
    return origins


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _setting(
    default: Any, parse: Callable[[str], Any], about: str, *, variable: str | None = None
) -> Any:
    return field(default=default, metadata={"parse": parse, "about": about, "variable": variable})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a SpineXR process. An MB of the settings is 1,048,576 bytes."""

    weights: Path = _setting(
        PROJECT_ROOT, _path, "folder that holds `ensemble output/` and `detection output/`"
    )
    uploads: Path = _setting(
        PROJECT_ROOT / "uploads", _path, "spool of uploads in flight, empty between requests"
    )
    host: str = _setting("127.0.0.1", _host, "address to listen on")
    port: int = _setting(5000, _integer(1, 65535), "port to listen on", variable="PORT")
    max_upload_mb: int = _setting(16, _integer(1, 1024), "largest file accepted, in MB")
    max_megapixels: int = _setting(40, _integer(1, 400), "largest image accepted, in megapixels")
    detect: str = _setting(
        "when_abnormal",
        _choice("when_abnormal", "always"),
        "when the lesion detector runs: when_abnormal, always",
    )
    engine: str = _setting(
        "auto",
        _choice("auto", "openvino", "torch"),
        "what runs the networks: openvino, torch, or auto, which is torch on an NVIDIA GPU",
    )
    precision: str = _setting(
        "exact",
        _choice("exact", "bf16", "int8"),
        "numbers OpenVINO computes in: exact, or bf16 and int8 once `compile` judged them",
    )
    device: str = _setting(
        "auto",
        _choice("auto", "cpu", "cuda", "mps"),
        "where the networks run: auto, cpu, cuda, mps",
    )
    engines: Path = _setting(
        PROJECT_ROOT / "engines", _path, "folder of networks compiled for OpenVINO"
    )
    inference_threads: int = _setting(
        0, _integer(0, 256), "processor threads for the networks; 0 means all cores"
    )
    readers: int = _setting(
        2, _integer(1, 64), "processes that read and decode files, one file each at a time"
    )
    reader_memory_mb: int = _setting(
        384, _integer(256, 65536), "address space of such a process, in MB"
    )
    reader_timeout_s: int = _setting(6, _integer(1, 600), "seconds that reading a file may take")
    queue: int = _setting(
        4, _integer(1, 255), "analyses that may run or wait at once; more are answered 503"
    )
    web_threads: int = _setting(
        16, _integer(2, 256), "requests handled at once by the web server; more than SPINEXR_QUEUE"
    )
    graceful_timeout_s: int = _setting(
        20, _integer(1, 600), "seconds that requests in flight get to finish at shutdown"
    )
    upload_timeout_s: int = _setting(
        120, _integer(1, 3600), "seconds in which a request must have arrived whole"
    )
    request_timeout_s: int = _setting(
        60, _integer(1, 3600), "seconds in which a file that has arrived must be answered"
    )
    rate_limit: str = _setting(
        "600 per minute",
        _rate,
        "most files analysed for one address: N per second, minute or hour, or none",
    )
    dicomweb_credentials: Path | None = _setting(
        None,
        _path,
        "file with a line for each archive that batches ask: `https://HOST Bearer TOKEN` or "
        "`https://HOST Basic USER:PASSWORD`",
    )
    tokens_file: Path | None = _setting(
        None, _path, "file of the access tokens; with one, nothing is analysed without a token"
    )
    insecure: bool = _setting(
        False, _switch, "1 to listen beyond this machine without tokens: whoever reaches it uses it"
    )
    show_patient: bool = _setting(
        False, _switch, "1 to show the patient's name and ID beside the image"
    )
    proxies: int = _setting(
        0, _integer(0, 10), "proxies in front whose X-Forwarded headers are believed"
    )
    root_path: str = _setting(
        "", _root_path, "path below which a proxy offers it, such as /spinexr"
    )
    trusted_hosts: tuple[str, ...] = _setting(
        (),
        _hosts,
        "host names that requests may be for; by default this machine's own where it listens to "
        "nobody else and no proxy is counted, any otherwise",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), _origins, "origins whose pages may call the API; none by default"
    )
    log_level: str = _setting(
        "info",
        _choice("debug", "info", "warning", "error"),
        "how much is logged: debug, info, warning, error",
    )
    log_format: str = _setting(
        "console",
        _choice("console", "json"),
        "lines of the log: console for people, json for programs",
    )
    audit_file: Path | None = _setting(
        None,
        _path,
        "file with a line for each analysis, without patients; of 10 MB, and the five before it",
    )

    codes: Path | None = _setting(
        None, _path, "file of codes for the DICOM objects, put over the private ones"
    )
    node_config: Path | None = _setting(
        None, _path, "file of the DICOM node's callers, destinations and rules"
    )
    node_ae_title: str = _setting("SPINEXR", _ae_title, "AE title of the node")
    node_host: str = _setting("127.0.0.1", _host, "address the node listens on")
    node_port: int = _setting(11112, _integer(1, 65535), "port the node listens on")
    node_http_port: int = _setting(
        11180, _integer(1, 65535), "port of the node's /livez and /metrics, on this machine only"
    )
    node_queue: Path = _setting(
        PROJECT_ROOT / "queue", _path, "folder of what the node has received and not delivered"
    )
    node_queue_mb: int = _setting(
        4096, _integer(64, 16 * MEBIBYTE), "most that this folder may hold, in MB"
    )
    node_key_file: Path | None = _setting(
        None, _path, "file of the key that the queue is encrypted with"
    )
    node_associations: int = _setting(
        16, _integer(1, 256), "associations that the node accepts at once"
    )
    node_timeout_s: int = _setting(
        30, _integer(1, 3600), "seconds that somebody who sends to the node may be silent"
    )

    @property
    def node_open_to_others(self) -> bool:
        """Whether other machines reach the node."""
        return not _is_loopback(self.node_host)

    @property
    def node_queue_bytes(self) -> int:
        return self.node_queue_mb * MEBIBYTE

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * MEBIBYTE

    @property
    def max_pixels(self) -> int:
        return self.max_megapixels * 1_000_000

    @property
    def open_beyond_this_machine(self) -> bool:
        """Whether other machines reach it."""
        return not _is_loopback(self.host)

    @property
    def open_to_others(self) -> bool:
        """Whether other machines may use it without saying who they are."""
        return self.tokens_file is None and self.open_beyond_this_machine

    @property
    def detect_policy(self) -> DetectPolicy:
        """When the lesion detector runs."""
        # Late: it brings numpy along, which the process above the server needs not hold.
        from spinexr.domain import DetectPolicy

        return DetectPolicy(self.detect)

    @property
    def engine_options(self) -> EngineOptions:
        """How the networks are to run."""
        from spinexr.inference.engines import EngineOptions
        from spinexr.inference.engines.precision import Precision

        return EngineOptions(
            engine=self.engine,
            device=self.device,
            store=self.engines,
            threads=self.inference_threads,
            precision=Precision(self.precision),
        )

    @property
    def sandbox_options(self) -> SandboxOptions:
        """The limits of the processes that read files."""
        from spinexr.imaging.sandbox import SandboxOptions

        return SandboxOptions(
            workers=self.readers,
            memory_mb=self.reader_memory_mb,
            timeout_s=self.reader_timeout_s,
            show_patient=self.show_patient,
        )

    def to_env(self) -> dict[str, str]:
        """The environment that `from_env` reads these settings from."""
        return {variable: _as_text(getattr(self, f)) for variable, f in self.variables().items()}

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Environment variable → field name. `PORT` alone has no prefix: hosts set it."""
        return {f.metadata["variable"] or f"SPINEXR_{f.name.upper()}": f.name for f in fields(cls)}

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """(variable, default, what it is) of every setting, for the documents."""
        by_name = {f.name: f for f in fields(cls)}
        rows = []
        for variable, name in cls.variables().items():
            default = by_name[name].default
            if isinstance(default, Path):
                relative = default.relative_to(PROJECT_ROOT).as_posix()
                default = "the project folder" if relative == "." else f"{relative}/"
            elif isinstance(default, tuple):
                default = ", ".join(default) or "none"
            elif default in (None, ""):
                default = "none"
            elif isinstance(default, bool):
                default = int(default)
            rows.append((variable, str(default), by_name[name].metadata["about"]))
        return rows

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read and check every setting; an empty variable counts as not set.

        Raises:
            ConfigurationError: a value is nonsensical, or a SPINEXR_ variable is not known.
        """
        variables = cls.variables()
        by_name = {f.name: f for f in fields(cls)}
        unknown = sorted(k for k in environ if k.startswith("SPINEXR_") and k not in variables)
        if unknown:
            close = difflib.get_close_matches(unknown[0], variables, n=1, cutoff=0.8)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"{unknown[0]} is not a setting of SpineXR.{hint}")
        values: dict[str, Any] = {}
        for variable, name in variables.items():
            text = environ.get(variable, "").strip()
            if not text:
                continue
            parse = by_name[name].metadata["parse"]
            try:
                values[name] = parse(text)
            except ValueError as e:
                raise ConfigurationError(
                    f"{variable}={text!r} is not valid: it must be {parse.__doc__}."
                ) from e
        settings = cls(**values)
        if settings.web_threads <= settings.queue:
            raise ConfigurationError(
                f"SPINEXR_WEB_THREADS={settings.web_threads} must be more than "
                f"SPINEXR_QUEUE={settings.queue}: with all threads analysing, none is left to say "
                "that the service is busy or healthy."
            )
        if settings.open_to_others and not settings.insecure:
            raise ConfigurationError(
                f"SPINEXR_HOST={settings.host} would let other machines in, and nobody would be "
                "asked who they are. Set SPINEXR_TOKENS_FILE (see python -m spinexr token), or "
                "SPINEXR_INSECURE=1 where something in front of it asks."
            )
        return settings
