# One image for Prefect's server, its services and the workers: what is locked in requirements.lock, nothing else.
# torch's wheels bring their CUDA libraries along, so the same image trains on a GPU (several GB, downloaded once).
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1

RUN useradd --create-home --uid 1000 wit \
    && install --directory --owner wit --group wit /workspace

WORKDIR /app
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY sql ./sql
COPY pipeline ./pipeline
COPY model ./model
COPY flows ./flows
# Editable, so that flows/ lies beside prefect.yaml and pyproject.toml, which Prefect reads from here.
RUN pip install --no-deps --editable .

USER wit
ENV PREFECT_HOME=/home/wit/.prefect \
    # The server unpacks its UI at the first start; its own folder belongs to root.
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/home/wit/.prefect/ui
VOLUME /workspace
EXPOSE 4200
CMD ["prefect", "version"]
