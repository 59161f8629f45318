# SpineXR, two images out of one file.
#
#   docker build -t spinexr .                      serves the compiled bundle on a CPU: no torch, no compiler
#   docker build -t spinexr:full --target full .   the whole stack: any bundle, training, a GPU
#   docker run --rm -p 5000:5000 --shm-size 256m spinexr
#
# DEPLOYMENT.md tells how to bring weights of your own and what else can be set.
ARG BASE=python:3.11-slim

# hadolint ignore=DL3006
FROM ${BASE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN useradd --uid 1000 --create-home spinexr
WORKDIR /app

# --- the whole stack ---------------------------------------------------------------------------
FROM base AS full
# CPU builds from PyTorch's own index first; requirements.txt then finds its versions in place. For a GPU:
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt constraints.txt ./
RUN grep -E '^torch(vision)?==' requirements.txt > torch.txt \
    && pip install --index-url "${TORCH_INDEX}" -r torch.txt \
    && pip install -r requirements.txt \
    && rm torch.txt
COPY . .
RUN chown spinexr uploads && mkdir engines && chown spinexr engines
ENV SPINEXR_HOST=0.0.0.0 \
    SPINEXR_INSECURE=1 \
    PORT=5000
USER 1000
EXPOSE 5000
# urlopen raises, and so exits with 1, on anything but a success. Models take seconds to load.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["gunicorn", "app:app"]

# --- the bundle's networks, compiled -----------------------------------------------------------
FROM full AS engines
RUN python -m spinexr compile --pack /tmp/packed.tar \
    && mkdir /tmp/packed \
    && tar --extract --file /tmp/packed.tar --directory /tmp/packed

# --- what serves -------------------------------------------------------------------------------
FROM base AS serve
LABEL org.opencontainers.image.title="SpineXR" \
      org.opencontainers.image.description="Radiograph AI on the spine. Research software, never a diagnosis." \
      org.opencontainers.image.licenses="MIT AND AGPL-3.0-only"
COPY requirements-serve.lock ./
COPY bin/slim bin/slim
RUN pip install --require-hashes -r requirements-serve.lock \
    && bin/slim "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
COPY app.py gunicorn.conf.py LICENSE NOTICE ./
COPY spinexr spinexr
COPY templates templates
COPY static static
COPY samples samples
COPY translations translations
COPY --from=engines /tmp/packed ./
RUN mkdir uploads && chown spinexr uploads
# No spare copies of freed memory, and pages as large as the kernel offers. bf16 where the processor has it
# and the bundle's verdict allows it; otherwise exact, and /health says why.
ENV SPINEXR_HOST=0.0.0.0 \
    SPINEXR_INSECURE=1 \
    SPINEXR_PRECISION=bf16 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    PORT=5000
USER 1000
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["gunicorn", "app:app"]
