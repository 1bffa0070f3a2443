"""What a server takes from strangers, and no more."""

from dataclasses import dataclass, fields

from madtp.errors import InputError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of a server; beyond one a request is refused with the reason, and nothing of it is kept.

    Attributes:
        body: bytes of a request.
        pixels: width x height of a picture, looked at before it is decoded.
        images, texts: of a request.
        text: characters of a text.
        queue: requests at once: being read, waiting or answered.
        memory: bytes of all bodies at once.
        read_seconds: to send a request in.
        seconds: from then until it is answered.
        connections: open at once.
    """

    body: int = 16 * MIB
    pixels: int = 16_000_000
    images: int = 16
    texts: int = 32
    text: int = 1000
    queue: int = 64
    memory: int = 256 * MIB
    read_seconds: float = 10.0
    seconds: float = 30.0
    connections: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise InputError(f"{getattr(self, field.name)} is not above 0", field.name)
