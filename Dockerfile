# mailwright in one image: every process of it is `mailwright …`.
FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
WORKDIR /build
COPY requirements requirements
RUN pip install --quiet --require-hashes --requirement requirements/bootstrap.txt \
    && python -m venv --without-pip /opt/mailwright \
    && VIRTUAL_ENV=/opt/mailwright uv pip sync --require-hashes --compile-bytecode requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY schema schema
COPY tasks tasks
COPY worker worker
RUN uv build --wheel --build-constraints requirements/dev.txt --require-hashes --out-dir dist . \
    && VIRTUAL_ENV=/opt/mailwright uv pip install --no-deps --compile-bytecode dist/*.whl

FROM python:3.13-slim

RUN useradd --uid 10001 --create-home --home-dir /var/lib/mailwright --shell /usr/sbin/nologin mailwright
COPY --from=build /opt/mailwright /opt/mailwright
ENV PATH=/opt/mailwright/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MAILWRIGHT_HOME=/var/lib/mailwright \
    MAILWRIGHT_LOG_FORMAT=json
USER mailwright
WORKDIR /var/lib/mailwright
ENTRYPOINT ["mailwright"]
CMD ["--help"]
