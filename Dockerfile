# A BIDS App with the weights inside: docker run ... d3m IN OUT participant   (docs/containers.md)
#
#   docker build --build-arg TORCH_INDEX=<index of PyTorch's CPU wheels> --tag d3m .
#
# With NVIDIA cards: leave TORCH_INDEX out (on Linux the default wheel of PyTorch brings CUDA's libraries with it), and take
# a base image of NVIDIA's with Python 3.10 or later in its package archive:
#
#   docker build --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 --tag d3m:cuda .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
ARG TORCH_INDEX=
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3-venv
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY D3MSynthesis D3MSynthesis
COPY D3MTraining D3MTraining
COPY D3MBenchmark D3MBenchmark
COPY Resources Resources
# PyTorch alone from its index, everything else from the usual one; the lock file decides on all versions.
RUN python3 -m venv /opt/d3m \
    && /opt/d3m/bin/pip install --no-cache-dir --constraint requirements.lock hatchling \
    && /opt/d3m/bin/pip install --no-cache-dir --constraint requirements.lock --no-deps \
        ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch \
    && /opt/d3m/bin/pip install --no-cache-dir --constraint requirements.lock --no-build-isolation ".[cluster]"

FROM base
COPY --from=build /opt/d3m /opt/d3m
ENV PATH=/opt/d3m/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin d3m
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The command starts, and finds its model.
RUN d3m models
ENTRYPOINT ["d3m", "bids"]
CMD ["--help"]
