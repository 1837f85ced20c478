"""Owns the words for who may do what through the API: the roles of credentials, and who may read."""

from enum import StrEnum


class Role(StrEnum):
    """What the holder of a credential may do. Each role includes those before it."""

    VIEW = "view"
    """Read what runs."""
    OPERATE = "operate"
    """Operations on what runs, which change no mapping."""
    ADMIN = "admin"
    """Change mappings."""

    def includes(self, needed: "Role") -> bool:
        """Whether this role may do what needs the role `needed`."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)


class Reads(StrEnum):
    """Who may read what runs."""

    OPEN = "open"
    """Everybody who reaches the address."""
    TOKEN = "token"
    """Holders of a token or an access key."""
