package trace

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
)

// maxResource bounds how many attributes the environment may add.
const maxResource = 64

// newResource returns what the spans say of this process. The environment may name it
// otherwise and add to it (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES), but not say
// that it is another one.
func newResource(cfg *Config) (*resource.Resource, error) {
	r := &resource.Resource{Attributes: []*common.KeyValue{String("service.name", cfg.Service)}}
	added, err := parseResource(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"))
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w: write it as name=value,name=value", err)
	}
	if name := os.Getenv("OTEL_SERVICE_NAME"); name != "" {
		added = append(added, String("service.name", name))
	}
	added = append(added, String("culvert.identifier", cfg.Identifier), String("service.instance.id", cfg.Instance))
	if cfg.Name != "" {
		added = append(added, String("culvert.name", cfg.Name))
	}
	for _, a := range added {
		r.Attributes = set(r.Attributes, a)
	}
	return r, nil
}

// parseResource reads names and values as OTEL_RESOURCE_ATTRIBUTES has them:
// name=value, joined by commas, the values percent-encoded (OpenTelemetry, Resource
// SDK, "Specifying resource information via an environment variable").
func parseResource(text string) (attrs []Attr, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("%q has no name or no value", pair)
		}
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("the value of %q: %w", name, err)
		}
		if attrs = append(attrs, String(name, decoded)); len(attrs) > maxResource {
			return nil, fmt.Errorf("there are more than %d", maxResource)
		}
	}
	return attrs, nil
}
