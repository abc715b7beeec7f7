# The project with all that its tests need, on a CPU.
#
#   docker build -t difformer-plugin .
#   docker run --rm difformer-plugin                     # what .ci/run checks
#   docker run --rm -it -v "$PWD/runs:/runs" difformer-plugin difformer demo --out /runs/demo-run
FROM python:3.12-slim

# fairseq is compiled while it is installed
RUN apt-get update && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /difformer-plugin
# torch without CUDA
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
COPY . .
RUN make install

ENV PATH=/difformer-plugin/.venv/bin:$PATH
CMD [".ci/run"]
