package devqueue

import (
	"fmt"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// keys are the secrets of a deployment. They are made once, so that what it
// gave out before a restart is good after it.
type keys struct {
	Root         string `json:"root"`         // access token of RootClient
	Certificates string `json:"certificates"` // signs temporary credentials
	URLs         string `json:"urls"`         // signs the URLs of contents
	Tunnels      string `json:"tunnels"`      // signs tokens for web socket tunnels
}

const keyBucket store.Bucket[keys] = "keys"

// loadKeys returns the keys in db, which are made if they are missing.
func loadKeys(db *store.DB) (keys, error) {
	var k keys
	err := db.Update(func(tx *store.Tx) error {
		found, known, err := keyBucket.Get(tx, "keys")
		if k = found; err != nil || known {
			return err
		}
		for _, key := range []*string{&k.Root, &k.Certificates, &k.URLs, &k.Tunnels} {
			if *key, err = auth.Token(); err != nil {
				return err
			}
		}
		return keyBucket.Put(tx, "keys", k)
	})
	if err != nil {
		return keys{}, fmt.Errorf("load keys: %w", err)
	}
	return k, nil
}
