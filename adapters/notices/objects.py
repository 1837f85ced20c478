"""Owns the reading of objects with notices or events."""

from botocore.exceptions import BotoCoreError

from adapters.aws.calls import calling
from adapters.aws.clients import client
from adapters.notices.settings import DOCUMENT_BYTES_MAX
from poller.domain.errors import ResourceMissing, ServiceUnavailable
from poller.plugins import Environment


class Objects:
    """Reads objects of any bucket. The client is made when the first one is wanted."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    async def read(self, bucket: str, key: str) -> bytes:
        """The content of an object. Raises port errors, ServiceUnavailable also for an object that is too large to be a notice."""
        # A bucket's name has no region. The first request goes to the daemon's region, and S3 answers which one is right.
        service = await client(self._env, "s3", None)
        try:
            with calling("s3 GetObject"):
                answer = await service.get_object(Bucket=bucket, Key=key)
                async with answer["Body"] as body:
                    content: bytes = await body.read(DOCUMENT_BYTES_MAX + 1)
        except BotoCoreError as error:
            # Elsewhere that is a bug. Here both names are from a notice, and the client refuses them before it asks S3.
            text = f"s3 GetObject: no bucket or object can have this name: {type(error).__name__}"
            raise ResourceMissing(text) from error
        if len(content) > DOCUMENT_BYTES_MAX:
            raise ServiceUnavailable(f"s3 GetObject: {bucket}/{key} has more than {DOCUMENT_BYTES_MAX} bytes")
        return content
