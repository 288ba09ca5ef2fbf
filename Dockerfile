# Phosphene in a container: `docker compose up` (docker-compose.yml says what else there is).
# Bluetooth headsets stay outside: bring them in by LSL (the service lsl).
# Debian 12: its C library is new enough (2.36) for the LSL library that pylsl brings.
FROM python:3.12-slim-bookworm

WORKDIR /opt/phosphene

# What is installed changes seldom, so it comes before the code. An editable installation
# needs the packages' folders only to be there.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts/setup.sh scripts/setup.sh
COPY acquisition/__init__.py acquisition/__init__.py
COPY app/__init__.py app/__init__.py
COPY models/__init__.py models/__init__.py
COPY models/training/__init__.py models/training/__init__.py
# cpu or cuda: no GPU can be seen while an image is built.
ARG TORCH=cpu
RUN TORCH=${TORCH} PIP_NO_CACHE_DIR=1 sh scripts/setup.sh run

COPY NOTICE ./
COPY acquisition acquisition
COPY app app
COPY models models
COPY web web
COPY weights weights

# All that is written goes to /tmp.
RUN useradd --no-create-home --home-dir /tmp --uid 1000 phosphene
USER phosphene
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    MNE_DONTWRITE_HOME=true \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HUB_OFFLINE=1

EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["/opt/phosphene/.venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]

# --in-container listens on all of the container's addresses; the port is to be published on
# the host's 127.0.0.1 alone, as docker-compose.yml does.
ENTRYPOINT ["/opt/phosphene/.venv/bin/phosphene"]
CMD ["demo", "--in-container", "--no-open-browser"]
