# SpineXR on CPU. Build: docker build -t spinexr .
# Run:   docker run --rm -p 5000:5000 -v "$PWD/weights:/weights:ro" spinexr
# where weights/ holds "ensemble output" and "detection output".
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /app

# CPU builds from PyTorch's own index first; requirements.txt then finds its versions in place.
COPY requirements.txt constraints.txt ./
RUN torch="$(grep -E '^torch==' requirements.txt)" \
    && torchvision="$(grep -E '^torchvision==' requirements.txt)" \
    && pip install --index-url https://download.pytorch.org/whl/cpu "$torch" "$torchvision" \
    && pip install -r requirements.txt

RUN useradd --uid 1000 --create-home spinexr
COPY --chown=spinexr:spinexr . .
USER spinexr

ENV SPINEXR_HOST=0.0.0.0 \
    SPINEXR_INSECURE=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    SPINEXR_WEIGHTS=/weights \
    PORT=5000
EXPOSE 5000

# urlopen raises, and so exits with 1, on anything but a success. Models take seconds to load.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]

CMD ["gunicorn", "app:app"]
