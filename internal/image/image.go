// Package image writes container images FROM scratch as archives that docker,
// containerd and the tools of registries load. The same files give the same
// bytes, and so the same digest, on every machine. It builds no program and
// knows no registry.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// A File is one entry of an image: a file's content, or where a link leads.
type File struct {
	Path string // from the root, clean and without the leading slash, as bin/relay
	Mode int64  // permissions, as 0o555; of no meaning with Link
	Body []byte // not with Link
	Link string // a symbolic link's target
}

// An Image is what one platform's image holds, and how it is run.
type Image struct {
	Architecture string // as Go and OCI call it: amd64, arm64
	Files        []File // the folders that they are in need no entry
	User         string // UID:GID
	Env          []string
	Entrypoint   []string
	Cmd          []string
	Labels       map[string]string
}

// OCI image specification v1.1: media types, and the version of the layout.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"

	layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

	// epoch stands for all times, which would make builds differ.
	epoch = "1970-01-01T00:00:00Z"
)

// A descriptor names a blob (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// An index lists manifests, of platforms or of names (image-spec, image-index.md).
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// A manifest joins a configuration and layers (image-spec, manifest.md).
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// configuration is an image's (image-spec, config.md).
type configuration struct {
	Created      string   `json:"created"`
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	Config       execute  `json:"config"`
	RootFS       rootFS   `json:"rootfs"`
	History      []layers `json:"history"`
}

type execute struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type layers struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// A loadable is an entry of manifest.json, by which docker and older containerd
// load (moby, image/tarexport).
type loadable struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// Write writes images, one a platform, as an OCI image layout in a tar archive,
// under name, which is a reference with a tag: registry/repository:tag. It returns
// the digest that the name has in a registry: that of the manifest, and of an
// index of manifests where there are several.
//
// An archive of one image can be loaded by docker of any version, too.
func Write(w io.Writer, name string, images ...Image) (digest string, err error) {
	tag := name[strings.LastIndexByte(name, ':')+1:]
	if tag == name || tag == "" || strings.Contains(tag, "/") {
		return "", fmt.Errorf("the image's name %q has no tag: give it one, as in %s:dev", name, name)
	}
	if len(images) == 0 {
		return "", errors.New("no image to write")
	}
	blobs := store{}
	var manifests []descriptor
	var docker []loadable
	for _, img := range images {
		d, load, err := img.add(blobs)
		if err != nil {
			return "", fmt.Errorf("image for %s: %w", img.Architecture, err)
		}
		load.RepoTags = []string{name}
		manifests, docker = append(manifests, d), append(docker, load)
	}
	top := manifests[0]
	if len(manifests) > 1 {
		if top, err = blobs.addJSON(typeIndex, index{2, typeIndex, manifests}); err != nil {
			return "", err
		}
		docker = nil // one of its names is one image
	}
	digest = top.Digest
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name}
	return digest, blobs.archive(w, index{2, typeIndex, []descriptor{top}}, docker)
}

// add puts the image's blobs into a store and returns its manifest.
func (img Image) add(blobs store) (descriptor, loadable, error) {
	plain, err := img.layer()
	if err != nil {
		return descriptor{}, loadable{}, err
	}
	packed, err := compress(plain)
	if err != nil {
		return descriptor{}, loadable{}, err
	}
	layer := blobs.add(typeLayer, packed)
	config, err := blobs.addJSON(typeConfig, configuration{
		Created: epoch, Architecture: img.Architecture, OS: "linux",
		Config:  execute{img.User, img.Env, img.Entrypoint, img.Cmd, "/", img.Labels},
		RootFS:  rootFS{"layers", []string{sum(plain)}},
		History: []layers{{epoch, "static files"}},
	})
	if err != nil {
		return descriptor{}, loadable{}, err
	}
	d, err := blobs.addJSON(typeManifest, manifest{2, typeManifest, config, []descriptor{layer}})
	d.Platform = &platform{img.Architecture, "linux"}
	return d, loadable{Config: blobPath(config.Digest), Layers: []string{blobPath(layer.Digest)}}, err
}

// layer returns the image's files as a tar archive, in the order of their paths,
// owned by root.
func (img Image) layer() ([]byte, error) {
	entries := map[string]*tar.Header{}
	bodies := map[string][]byte{}
	for _, f := range img.Files {
		if f.Path != strings.TrimPrefix(path.Clean("/"+f.Path), "/") || f.Path == "" {
			return nil, fmt.Errorf("the path %q is not clean, or not relative to the root", f.Path)
		}
		if entries[f.Path] != nil {
			return nil, fmt.Errorf("two files are called %s, or one is called like a folder", f.Path)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: f.Mode, Size: int64(len(f.Body))}
		if f.Link != "" {
			h = &tar.Header{Typeflag: tar.TypeSymlink, Name: f.Path, Linkname: f.Link, Mode: 0o777}
		}
		entries[f.Path], bodies[f.Path] = h, f.Body
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			switch h := entries[dir]; {
			case h == nil:
				entries[dir] = &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}
			case h.Typeflag != tar.TypeDir:
				return nil, fmt.Errorf("%s is a file and the folder of %s", dir, f.Path)
			}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.WriteHeader(entries[name]); err != nil {
			return nil, err
		}
		if entries[name].Typeflag != tar.TypeReg {
			continue
		}
		if _, err := w.Write(bodies[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression) // its header has no name and no time
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// A store holds blobs by their digests.
type store map[string][]byte

func (s store) add(mediaType string, b []byte) descriptor {
	digest := sum(b)
	s[digest] = b
	return descriptor{MediaType: mediaType, Digest: digest, Size: len(b)}
}

func (s store) addJSON(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return s.add(mediaType, b), nil
}

// archive writes the store as an OCI image layout (image-spec, image-layout.md).
func (s store) archive(w io.Writer, top index, docker []loadable) error {
	files := map[string][]byte{"oci-layout": []byte(layoutVersion)}
	for digest, b := range s {
		files[blobPath(digest)] = b
	}
	var err error
	if files["index.json"], err = json.Marshal(top); err != nil {
		return err
	}
	if docker != nil {
		if files["manifest.json"], err = json.Marshal(docker); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			return err
		}
		if _, err := t.Write(files[name]); err != nil {
			return err
		}
	}
	return t.Close()
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

func blobPath(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}
