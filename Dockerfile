# ftbench in a container; docs/engines.md, "Kubernetes and SkyPilot", has the commands that build it.
#
# PIP_EXTRA_INDEX_URL: a package index that has PyTorch's CPU builds, for an image that is smaller and without GPUs.
# USER: who runs; 0, which is root, for SkyPilot.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL
ARG USER=1000

RUN useradd --uid 1000 --create-home ftbench

WORKDIR /ftbench
COPY pyproject.toml constraints.txt README.md LICENSE ./

# As `make setup` does. PyTorch is a layer of its own, which a change of the code leaves as it is.
RUN pip install --no-cache-dir -c constraints.txt setuptools wheel torch
COPY harness harness
COPY strategies strategies
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt --no-build-isolation ".[deepspeed,hf,data]"

USER ${USER}
ENTRYPOINT ["ftbench"]
