package route_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/corridor-enclave/corridor/host/route"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                                  "ADDR/NAME@CID",
		":443":                              "ADDR/NAME@CID",
		":443/a.example":                    "ADDR/NAME@CID",
		":443@16":                           "ADDR/NAME@CID",
		":443/@16":                          "not a name",
		":443/*.@16":                        "not a name",
		":443/*@16":                         "not a name",
		":443/a..example@16":                "not a name",
		":443/a.*.example@16":               "not a name",
		":443/a example@16":                 "not a name",
		":443/bücher.example@16":            "xn--",
		":443/a.example:443@16":             "not a name",
		":443/a.example@":                   "not the CID",
		":443/a.example@0":                  "not the CID",
		":443/a.example@4294967295":         "not the CID",
		":443/a.example@16,16":              "named twice",
		":443/" + strings.Repeat("a.", 127): "ADDR/NAME@CID",
		":443/" + strings.Repeat("a.", 126) + "ab@16": "not a name",
		":443/" + strings.Repeat("a", 64) + "@16":     "not a name",
		":443/a@" + strings.Repeat("1", 11):           "not the CID",
	} {
		if r, err := route.Parse(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, %v; want an error with %q", value, r, err, want)
		}
	}
	var many strings.Builder
	for i := range 65 {
		many.WriteString("," + vsockconn.CID(16+i).String())
	}
	if cids, err := route.ParseCIDs(many.String()); err == nil {
		t.Errorf("%d enclaves pass", len(cids))
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]route.Route{
		":443/a.example@16":               {Local: ":443", Name: "a.example", Enclaves: []vsockconn.CID{16}},
		"[::1]:443/*.example.com@16,17":   {Local: "[::1]:443", Name: "*.example.com", Enclaves: []vsockconn.CID{16, 17}},
		"127.0.0.1:80/_x.xn--bcher-kva@1": {Local: "127.0.0.1:80", Name: "_x.xn--bcher-kva", Enclaves: []vsockconn.CID{1}},
	} {
		got, err := route.Parse(value)
		if err != nil || !reflect.DeepEqual(got, want) || got.String() != value {
			t.Errorf("Parse(%q) = %v, %v; want %v", value, got, err, want)
		}
	}
	// In the environment commas separate routes.
	if got, err := route.Parse(":443/A.Example@16+17"); err != nil || got.String() != ":443/a.example@16,17" {
		t.Errorf("with a plus sign: %v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(":443/*.example.com@16,17")
	f.Fuzz(func(t *testing.T, value string) {
		r, err := route.Parse(value)
		if err != nil {
			return
		}
		again, err := route.Parse(r.String())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q became %v, which became %v, %v", value, r, again, err)
		}
	})
}

func TestTable(t *testing.T) {
	t.Parallel()
	var routes []route.Route
	for _, value := range []string{":1/a.example@16", ":1/*.example@17", ":1/*.b.example@18", ":1/192.0.2.1@19"} {
		r, err := route.Parse(value)
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, r)
	}
	table, err := route.NewTable(routes)
	if err != nil || table.Empty() {
		t.Fatalf("%v, empty %v", err, table.Empty())
	}
	for name, want := range map[string]vsockconn.CID{
		"a.example": 16, "b.example": 17, "x.a.example": 17, "c.b.example": 18, "d.c.b.example": 18, "192.0.2.1": 19,
		"": 0, "example": 0, "aexample": 0, "a.example.com": 0, ".": 0,
	} {
		cids, ok := table.Find(name)
		if ok != (want != 0) || ok && cids[0] != want {
			t.Errorf("Find(%q) = %v, %v; want %d", name, cids, ok, want)
		}
	}
	if _, err := route.NewTable(append(routes, routes[1])); err == nil || !strings.Contains(err.Error(), ":1/*.example has two routes") {
		t.Errorf("two routes of a name: %v", err)
	}
	if cids, ok := (route.Table{}).Find("a.example"); ok || !(route.Table{}).Empty() {
		t.Errorf("the zero Table finds %v", cids)
	}
}
