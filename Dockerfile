# Two images of one build (deploy/README.md has what runs the second). Each holds one static binary and nothing else:
#
#   docker build --target enclave -t corridor-enclave .
#   docker build --target host    -t corridor-host .
#
# To put the enclave's end in front of an app, copy the binary into the app's
# image, and let it start the app:
#
#   COPY --from=corridor-enclave /enclave /enclave
#   ENTRYPOINT ["/enclave", "--fqdn", "app.example", "--app", "http://127.0.0.1:8080", "--", "/app"]
#
# The same sources give the same binaries, byte for byte: a test builds twice.
FROM golang:1.26.8 AS build
WORKDIR /src
# The modules first: they change less often than the sources.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build

FROM scratch AS enclave
COPY --from=build /src/bin/enclave /enclave
ENTRYPOINT ["/enclave"]

FROM scratch AS host
COPY --from=build /src/bin/host /host
ENTRYPOINT ["/host"]
