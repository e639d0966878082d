# syntax=docker/dockerfile:1

# gcc, g++ and make build librdkafka, SQLite and jemalloc; cmake and perl build OpenSSL (`kafka-tls`).
FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ gcc make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The target directory is a cache mount and not part of the image, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p eyego-log-server --features kafka-tls,parquet \
    && install -D target/release/eyego-log-server /out/eyego-log-server

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin eyego \
    && install --directory --owner eyego --group eyego --mode 0700 /var/lib/eyego-log
COPY --from=build /out/eyego-log-server /usr/local/bin/eyego-log-server

# 127.0.0.1 would not be reachable from outside the container. On this address the server starts only with
# a keys file (EYEGO_KEYS_FILE), or with EYEGO_AUTH=none if only trusted callers can reach the port.
ENV EYEGO_LISTEN=0.0.0.0:3000 \
    EYEGO_DATA_DIR=/var/lib/eyego-log
VOLUME /var/lib/eyego-log
USER eyego
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["eyego-log-server", "health"]
ENTRYPOINT ["eyego-log-server"]
