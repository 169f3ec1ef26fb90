package fetch

import "net/url"

// plainURL returns raw without what may be secret in it.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a URL that cannot be parsed"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
