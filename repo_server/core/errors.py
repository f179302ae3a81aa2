"""The exception tree of the core: outside data that does not have the form it must have.

::

    FormatError                  code, and a message: expected, found, what to do
    ├── VersionInvalid           a version that is not SemVer as L5 says
    ├── NameInvalid              a file name that is not a release file's (L4)
    ├── SidecarInvalid           a sidecar's content (L10 to L16)
    ├── StatementInvalid         a release statement (L20)
    ├── KeysInvalid              the release keys inside a root.json (L22)
    ├── PolicyInvalid            repo.toml, policy/channels.toml (L30, L31)
    ├── PackageInvalid           package.toml inside a package (L40)
    └── DeviceIdInvalid          a device id that is no UUID (L53)

A wrong call order is a programming error and raises ``RuntimeError``, never one of these.
"""


class FormatError(ValueError):
    """Outside data is malformed; ``code`` is stable and machine-readable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class VersionInvalid(FormatError):
    """A text is not a version that this product accepts (L5)."""


class NameInvalid(FormatError):
    """A file name does not name a release file or a sidecar of one (L4)."""


class SidecarInvalid(FormatError):
    """A sidecar's content is not of its format (L10 to L16)."""


class StatementInvalid(FormatError):
    """A text is not a release statement (L20)."""


class KeysInvalid(FormatError):
    """The release keys in a root's extra fields are missing or malformed (L22)."""


class PolicyInvalid(FormatError):
    """``repo.toml`` or ``policy/channels.toml`` is malformed (L30, L31)."""


class PackageInvalid(FormatError):
    """``package.toml`` is malformed or contradicts itself (L40)."""


class DeviceIdInvalid(FormatError):
    """A device id is not a UUID, with or without a known prefix (L53)."""
