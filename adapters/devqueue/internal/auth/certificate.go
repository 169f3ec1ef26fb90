package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Certificates may not last longer than this, and clocks may differ by this.
const (
	maxLifetime = 31 * 24 * time.Hour
	clockDrift  = 5 * time.Minute
)

// certificate limits the credentials it comes with to some scopes and a time.
// Times are milliseconds since 1970.
type certificate struct {
	Version   int         `json:"version"`
	Scopes    task.Scopes `json:"scopes"`
	Start     int64       `json:"start"`
	Expiry    int64       `json:"expiry"`
	Seed      string      `json:"seed"`
	Signature string      `json:"signature"`
	Issuer    string      `json:"issuer,omitempty"`
}

// sign returns the signature of the certificate for clientID by the issuer's
// access token.
func (c certificate) sign(clientID, accessToken string) string {
	lines := []string{"version:" + strconv.Itoa(c.Version)}
	if c.Issuer != "" {
		lines = append(lines, "clientId:"+clientID, "issuer:"+c.Issuer)
	}
	lines = append(lines,
		"seed:"+c.Seed,
		"start:"+strconv.FormatInt(c.Start, 10),
		"expiry:"+strconv.FormatInt(c.Expiry, 10),
		"scopes:",
	)
	lines = append(lines, c.Scopes...)
	return base64.StdEncoding.EncodeToString(sum(accessToken, strings.Join(lines, "\n")))
}

// accessToken returns the token that goes with the certificate.
func (c certificate) accessToken(issuerToken string) string {
	return base64.RawURLEncoding.EncodeToString(sum(issuerToken, c.Seed))
}

// check returns nil if issuer may and did give out the certificate to clientID
// and it is good now.
func (c certificate) check(clientID string, issuer principal, now time.Time) error {
	switch {
	case c.Version != 1:
		return errors.New("ext.certificate.version must be 1")
	case len(c.Seed) != 44:
		return errors.New("ext.certificate.seed must be 44 characters")
	case c.Scopes == nil:
		return errors.New("ext.certificate.scopes must be an array")
	case !validScopes(c.Scopes):
		return errors.New("ext.certificate.scopes must be an array of valid scopes")
	case c.Start > now.Add(clockDrift).UnixMilli():
		return errors.New("ext.certificate.start > now")
	case c.Expiry < now.Add(-clockDrift).UnixMilli():
		return errors.New("ext.certificate.expiry < now")
	case c.Expiry-c.Start > maxLifetime.Milliseconds():
		return errors.New("ext.certificate cannot last longer than 31 days")
	case c.Issuer != "" && !issuer.scopes.Satisfy("auth:create-client:"+clientID):
		return fmt.Errorf("ext.certificate issuer `%s` doesn't have `auth:create-client:%s` for the supplied clientId", issuer.id, clientID)
	case !issuer.scopes.Satisfy(c.Scopes...):
		return fmt.Errorf("ext.certificate issuer `%s` doesn't satisfy all certificate scopes %s: "+
			"the temporary credentials were not generated correctly", issuer.id, strings.Join(c.Scopes, ", "))
	case !hmac.Equal([]byte(c.Signature), []byte(c.sign(clientID, issuer.accessToken))):
		return errors.New("ext.certificate.signature is not valid, or wrong clientId provided")
	}
	return nil
}

// issue returns credentials for clientID that are good from start to expiry.
func issue(clientID string, start, expiry time.Time, scopes task.Scopes, issuer principal) (task.Credentials, error) {
	seed := make([]byte, 33)
	if _, err := rand.Read(seed); err != nil {
		return task.Credentials{}, fmt.Errorf("issue credentials of %s: %w", clientID, err)
	}
	c := certificate{
		Version: 1, Scopes: scopes, Start: start.UnixMilli(), Expiry: expiry.UnixMilli(),
		Seed: base64.RawURLEncoding.EncodeToString(seed), Issuer: issuer.id,
	}
	c.Signature = c.sign(clientID, issuer.accessToken)
	raw, err := json.Marshal(c)
	if err != nil {
		return task.Credentials{}, fmt.Errorf("issue credentials of %s: %w", clientID, err)
	}
	return task.Credentials{ClientID: clientID, AccessToken: c.accessToken(issuer.accessToken), Certificate: string(raw)}, nil
}

func sum(key, text string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// validScopes reports whether all are printable ASCII.
func validScopes(scopes task.Scopes) bool {
	for _, s := range scopes {
		if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			return false
		}
	}
	return true
}
