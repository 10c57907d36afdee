# All four programs in one image, as one static file under four names: from
# nothing, without a shell and without root. What runs is chosen by the command:
#
#   docker build --build-arg VERSION=$(git describe --tags --always) --build-arg REVISION=$(git rev-parse HEAD) -t culvert .
#   docker run culvert relay --config /etc/culvert/relay.yaml
#   docker run culvert culvert identity show /etc/culvert/relay.key
#
# Target `build` is the same programs (in /out) with a shell beside them.
# `make images` makes the same image without docker, and each time the same bytes. VERSION and
# REVISION are what --version says; without them, (devel).

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG TARGETOS
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
COPY pkg pkg
ARG VERSION
ARG REVISION
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -tags image -trimpath -buildvcs=false \
      -gcflags=github.com/antlr4-go/antlr/v4=-l \
      -ldflags="-s -w -X 'github.com/culvert-net/culvert/internal/obs.version=$VERSION' -X 'github.com/culvert-net/culvert/internal/obs.revision=$REVISION'" \
      -o /out/culvert ./cmd/culvert \
 && for name in inlet outlet relay; do ln -s culvert /out/$name; done

FROM scratch
COPY --from=build /out/ /bin/
ENV PATH=/bin
USER 65532:65532
CMD ["culvert", "--help"]
