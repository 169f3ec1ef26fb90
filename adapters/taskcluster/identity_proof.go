package taskcluster

import (
	"context"
	"encoding/json"
	"fmt"
)

// Prover makes a proof of the worker's identity, anew each time, as its
// provider takes it. It retries by itself what is worth it.
type Prover func(ctx context.Context) (json.RawMessage, error)

// ProveToAWS returns proofs of the host's instance identity document, exactly
// as the metadata service has it, and its PKCS7 signature.
func ProveToAWS(sources func(context.Context) (document, signature string, err error)) Prover {
	return func(ctx context.Context) (json.RawMessage, error) {
		document, signature, err := sources(ctx)
		if err != nil {
			return nil, fmt.Errorf("instance identity: %w", err)
		}
		return json.Marshal(struct {
			Document  string `json:"document"`
			Signature string `json:"signature"`
		}{document, signature})
	}
}

// ProveToGoogle returns proofs by identity tokens of the host, whose audience
// is the root URL of the deployment.
func ProveToGoogle(token func(context.Context) (string, error)) Prover {
	return prove("token", token)
}

// ProveToAzure returns proofs by the attested document of the host, in base64
// as the metadata service has it.
func ProveToAzure(document func(context.Context) (string, error)) Prover {
	return prove("document", document)
}

// ProveStatic returns proofs for a provider of static workers, which share a
// secret with it.
func ProveStatic(secret string) Prover {
	return prove("staticSecret", func(context.Context) (string, error) { return secret, nil })
}

// prove returns proofs of one property.
func prove(property string, source func(context.Context) (string, error)) Prover {
	return func(ctx context.Context) (json.RawMessage, error) {
		value, err := source(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", property, err)
		}
		return json.Marshal(map[string]string{property: value})
	}
}
