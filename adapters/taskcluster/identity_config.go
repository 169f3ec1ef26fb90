package taskcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// PoolConfig returns what the pool says of the worker's configuration: what
// came with the registration, and over it the secret "worker-pool:<pool>", if
// there is one. Objects are merged, lists are joined, and of other values that
// of the secret holds. Numbers are json.Number. It retries transient errors.
func (i *Identity) PoolConfig(ctx context.Context) (map[string]any, error) {
	config, err := workerConfig(i.pool)
	if err != nil {
		return nil, fmt.Errorf("configuration of worker pool %s: %w", i.Worker().Pool, err)
	}
	secret, err := PoolSecret(ctx, NewSecrets(i.c), i.Worker().Pool)
	if err != nil {
		return nil, err
	}
	return merged(config, secret), nil
}

// PoolSecret returns the configuration that is in the secret of a pool, which
// is empty if there is none.
func PoolSecret(ctx context.Context, s *Secrets, pool string) (map[string]any, error) {
	name := "worker-pool:" + pool
	raw, err := s.Get(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return map[string]any{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	config, err := workerConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return config, nil
}

// workerConfig returns the configuration in raw: the whole object, or what is
// under "config" where there is nothing else but "files". Errors do not quote
// raw, which may be secret.
func workerConfig(raw json.RawMessage) (map[string]any, error) {
	config := map[string]any{}
	if len(raw) == 0 {
		return config, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&config); err != nil || config == nil {
		return nil, errors.New("is not a JSON object")
	}
	for key := range config {
		if key != "config" && key != "files" {
			return config, nil
		}
	}
	if files, _ := config["files"].([]any); len(files) > 0 {
		return nil, errors.New(`has "files", which this worker does not write`)
	}
	if config["config"] == nil {
		return map[string]any{}, nil
	}
	inner, ok := config["config"].(map[string]any)
	if !ok {
		return nil, errors.New(`"config" is not a JSON object`)
	}
	return inner, nil
}

// merged returns base with what over says.
func merged(base, over map[string]any) map[string]any {
	result := make(map[string]any, len(base)+len(over))
	maps.Copy(result, base)
	for key, value := range over {
		switch value := value.(type) {
		case map[string]any:
			below, _ := result[key].(map[string]any)
			result[key] = merged(below, value)
		case []any:
			below, _ := result[key].([]any)
			result[key] = slices.Concat(below, value)
		default:
			result[key] = value
		}
	}
	return result
}
