package settings

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2"
)

// A keyValues is one TOML key with its values as text.
type keyValues struct {
	key     string
	values  []string
	isArray bool
}

// parseTOML reads a flat TOML file: keys with scalars or arrays of scalars. It
// returns the keys in alphabetical order, so that complaints come in a stable one.
func parseTOML(data []byte) ([]keyValues, error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("not TOML: %w", err)
	}
	var out []keyValues
	for key, v := range tree {
		kv := keyValues{key: key}
		items, isArray := v.([]any)
		if !isArray {
			items = []any{v}
		}
		kv.isArray = isArray
		for _, item := range items {
			text, err := scalar(item)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			kv.values = append(kv.values, text)
		}
		out = append(out, kv)
	}
	slices.SortFunc(out, func(a, b keyValues) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return out, nil
}

// scalar writes a TOML scalar as a user would type it on a command line.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	return "", fmt.Errorf("a %T is no value of a setting", v)
}
