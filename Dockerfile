# The operator's image. BASE is any image with Python 3.11 or newer, its venv module and CA certificates;
# PIP_INDEX_URL, PIP_FIND_LINKS and PIP_NO_INDEX (build arguments) say where packages come from.
#   docker build -t upstream-guard:0.1.0 .
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements-operator.lock requirements-build.lock ./
# Two environments, so that what builds the package is not shipped. Both exactly as locked, by hash.
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock \
 && python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements-operator.lock
COPY LICENSE README.md pyproject.toml ./
COPY crds crds
COPY deploy deploy
COPY operator operator
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && /opt/venv/bin/pip install --quiet --no-deps --no-index /tmp/wheel/*.whl \
 && /opt/venv/bin/python -m compileall -q /opt/venv \
 && /opt/venv/bin/pip uninstall --quiet --yes pip

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
# The root file system is read-only where it runs, so nothing may be written but /tmp.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080 9443
ENTRYPOINT ["/opt/venv/bin/upstream-guard"]
CMD ["run"]
