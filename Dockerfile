# The base can be pinned to a digest: docker build --build-arg BASE=python@sha256:...
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
SHELL ["/bin/sh", "-euc"]
WORKDIR /src
RUN python3 -m venv --without-pip /opt/poller && python3 -m venv /opt/build

# A private index or a company's certificate comes as a secret and stays out of every layer.
COPY requirements/run.lock deploy/build.lock ./
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf --mount=type=secret,id=ca-bundle \
    /opt/build/bin/pip --quiet --python /opt/poller/bin/python install --require-hashes --only-binary :all: -r run.lock && \
    /opt/build/bin/pip --quiet install --require-hashes --only-binary :all: -r build.lock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY poller poller
COPY adapters adapters
RUN /opt/build/bin/pip --quiet wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . && \
    /opt/build/bin/pip --quiet --python /opt/poller/bin/python install --no-deps --no-index dist/*.whl && \
    /opt/poller/bin/poller --version

FROM ${BASE}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="poller" \
      org.opencontainers.image.description="Lambda's event source mappings, outside Lambda: Kinesis, DynamoDB Streams and SQS to functions" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# Process 1 has to reap what functions' processes leave behind when they end, and the daemon must not: it would take away
# the exit statuses that functions wait for. Which version it is depends on the base's Debian.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log

# pip could install into nothing here: the daemon's own packages are in /opt/poller and the root file system is read-only.
RUN groupadd --gid 65532 poller && \
    useradd --no-log-init --no-create-home --uid 65532 --gid poller --home-dir /var/lib/poller --shell /usr/sbin/nologin poller && \
    install -d -o poller -g poller -m 0750 /var/lib/poller && \
    install -d /app /etc/poller && \
    rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/poller /opt/poller

# Functions of the `python` and `process` invokers, and their packages, are found in /app.
ENV PATH=/opt/poller/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    POLLER_CONFIG=/etc/poller/poller.yaml
WORKDIR /app
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["tini", "--", "poller"]
CMD ["run"]
