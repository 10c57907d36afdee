// Package chart renders Helm charts as `helm template` does, without a cluster and
// without Helm's command.
package chart

import (
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// Render returns the chart's files by name, as a release called culvert in the
// namespace culvert, with values in YAML. The error is what is wrong with the values,
// or a template.
func Render(c *chart.Chart, values string) (map[string]string, error) {
	parsed, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(c, parsed); err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValues(c, parsed, chartutil.ReleaseOptions{Name: "culvert", Namespace: "culvert"}, nil)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(c, all)
}
