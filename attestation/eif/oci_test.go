package eif_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"

	"github.com/corridor-enclave/corridor/attestation/eif"
)

// A layout is an OCI image layout in the making.
type layout struct {
	t     testing.TB
	files fstest.MapFS
}

func newLayout(t testing.TB) layout {
	return layout{t, fstest.MapFS{"oci-layout": {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}}
}

type object = map[string]any

// blob adds content and returns its descriptor.
func (l layout) blob(mediaType string, content []byte) object {
	name := fmt.Sprintf("%x", sha256.Sum256(content))
	l.files["blobs/sha256/"+name] = &fstest.MapFile{Data: content}
	return object{"mediaType": mediaType, "digest": "sha256:" + name, "size": len(content)}
}

func (l layout) json(mediaType string, v any) object {
	b, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, b)
}

// inZstd compresses.
func (l layout) inZstd(content []byte) []byte {
	var zipped bytes.Buffer
	z, err := zstd.NewWriter(&zipped)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := z.Write(content); err != nil {
		l.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		l.t.Fatal(err)
	}
	return zipped.Bytes()
}

// zstdLayer is a layer in zstd.
func (l layout) zstdLayer(headers ...tar.Header) object {
	return l.blob("application/vnd.oci.image.layer.v1.tar+zstd", l.inZstd(l.tar(headers...)))
}

// layer adds a tar of headers, in gzip or as it is.
func (l layout) layer(zip bool, headers ...tar.Header) object {
	content := l.tar(headers...)
	if !zip {
		return l.blob("application/vnd.oci.image.layer.v1.tar", content)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(content)
	z.Close()
	return l.blob("application/vnd.oci.image.layer.v1.tar+gzip", zipped.Bytes())
}

// tar is an archive of headers; the content of a file is its name.
func (l layout) tar(headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			l.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			fmt.Fprint(w, h.Name)
		}
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

// image adds a manifest and an index that names it.
func (l layout) image(layers ...object) {
	config := l.json("config", object{"config": object{"Entrypoint": []string{"/app"}, "Cmd": []string{"-p", "80"}, "Env": []string{"A=b"}}})
	m := l.json("manifest", object{"config": config, "layers": layers})
	m["platform"] = object{"os": "linux", "architecture": "amd64"}
	other := l.json("manifest", object{})
	other["platform"] = object{"os": "linux", "architecture": "arm64"}
	l.index(m, other)
}

func (l layout) index(manifests ...object) {
	b, err := json.Marshal(object{"manifests": manifests})
	if err != nil {
		l.t.Fatal(err)
	}
	l.files["index.json"] = &fstest.MapFile{Data: b}
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755} }

func TestReadOCI(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	if !eif.IsOCI(l.files) || eif.IsOCI(fstest.MapFS{}) {
		t.Error("a layout is not told from a folder")
	}
	l.image(
		l.layer(true, tar.Header{Typeflag: tar.TypeDir, Name: "./etc/", Mode: 0o755}, file("app"), file("etc/gone"), file("etc/kept"),
			file("old/a"), file("old/b/c"), file("dir/x"), tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "/app"}),
		l.zstdLayer(file("etc/.wh.gone")), l.layer(false, file("old/.wh..wh..opq"), file("old/new"), tar.Header{Typeflag: tar.TypeSymlink, Name: "dir", Linkname: "etc"}),
	)
	app, err := eif.ReadOCI(l.files, false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range app.Root {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"app", "dir", "etc", "etc/kept", "hard", "old/new"}; !slices.Equal(names, want) {
		t.Errorf("the image holds %q, want %q", names, want)
	}
	if string(app.Root["hard"].Content) != "app" || app.Root["hard"].Mode != 0o100755 || string(app.Root["dir"].Content) != "etc" {
		t.Errorf("links are lost: %v", app.Root)
	}
	if !reflect.DeepEqual(app.Command, []string{"/app", "-p", "80"}) || !reflect.DeepEqual(app.Environment, []string{"A=b"}) {
		t.Errorf("command %q, environment %q", app.Command, app.Environment)
	}
}

func TestReadOCIRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, want string
		make       func(l layout)
	}{
		{"no JSON", "end of JSON", func(l layout) { l.files["index.json"] = &fstest.MapFile{Data: []byte("{")} }},
		{"no image", "0 images", func(l layout) { l.index() }},
		{"two images", "2 images", func(l layout) { l.index(l.json("a", object{}), l.json("b", object{})) }},
		{"a digest of another kind", "no SHA-256", func(l layout) { l.index(object{"digest": "sha512:00"}) }},
		{"a digest that is a path", "no SHA-256", func(l layout) { l.index(object{"digest": "sha256:../../../etc/passwd"}) }},
		{"a blob that is missing", "not exist", func(l layout) { l.index(object{"digest": "sha256:" + strings.Repeat("0", 64)}) }},
		{"a blob that was changed", "is another", func(l layout) {
			d := l.json("a", object{})
			l.files["blobs/sha256/"+strings.TrimPrefix(d["digest"].(string), "sha256:")].Data = []byte("{ }")
			l.index(d)
		}},
		{"indexes without end", "more than 4 indexes", func(l layout) {
			d := l.json("a", object{"manifests": []object{}})
			for range 5 {
				d = l.json("a", object{"manifests": []object{d}})
			}
			l.index(d)
		}},
		{"a layer in another compression", "not understood", func(l layout) { l.image(l.blob("application/vnd.oci.image.layer.v1.tar+br", nil)) }},
		{"a layer that is no zstd", "magic", func(l layout) { l.image(l.blob("x.tar+zstd", []byte("no zstd at all"))) }},
		{"a layer in zstd, cut off", "unexpected EOF", func(l layout) {
			whole := l.inZstd([]byte(strings.Repeat("x", 100)))
			l.image(l.blob("x.tar+zstd", whole[:len(whole)-5]))
		}},
		{"a layer in zstd that wants all memory", "window size", func(l layout) {
			l.image(l.blob("x.tar+zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00}))
		}},
		{"a layer that is no gzip", "EOF", func(l layout) { l.image(l.blob("x.tar+gzip", nil)) }},
		{"a layer cut off", "unexpected EOF", func(l layout) {
			l.image(l.blob("x.tar", []byte(strings.Repeat("x", 100))))
		}},
		{"a path out of it", "leads out", func(l layout) { l.image(l.layer(false, file("../x"))) }},
		{"a device", "no folder, file or link", func(l layout) {
			l.image(l.layer(false, tar.Header{Typeflag: tar.TypeChar, Name: "null"}))
		}},
		{"a link to nothing", "which is no file", func(l layout) {
			l.image(l.layer(false, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"}))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			tt.make(l)
			app, err := eif.ReadOCI(l.files, false)
			if app != nil || !errors.Is(err, eif.ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("ReadOCI = %v, %v; want %q", app, err, tt.want)
			}
		})
	}
	if _, err := eif.ReadOCI(fstest.MapFS{}, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no layout: %v", err)
	}
}

// FuzzLayer holds that no layer makes an entry that leads out of the image.
func FuzzLayer(f *testing.F) {
	l := newLayout(f)
	for _, headers := range [][]tar.Header{{file("a/b"), file(".wh.a")}, {file("/abs"), {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc"}}} {
		d := l.layer(false, headers...)
		f.Add(l.files["blobs/sha256/"+strings.TrimPrefix(d["digest"].(string), "sha256:")].Data)
	}
	f.Fuzz(func(t *testing.T, layer []byte) {
		l := newLayout(t)
		l.image(l.blob("x.tar", layer))
		app, err := eif.ReadOCI(l.files, false)
		if err != nil {
			return
		}
		for name := range app.Root {
			if !fs.ValidPath(name) || name == "." {
				t.Fatalf("%q leads out of the image", name)
			}
		}
	})
}
