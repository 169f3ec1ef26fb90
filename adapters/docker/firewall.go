package docker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"text/template"
	"time"
)

// firewall keeps tasks from what they must not reach. Its rules are made once:
// they tell tasks by the names of their bridges, which begin alike. It has a
// table of its own, which neither the daemon nor the tools that manage other
// firewalls touch, and a packet passes only if no table drops it.
type firewall struct {
	prefix string // of the names of bridges
}

// Addresses of the metadata services of clouds: EC2, GCE and Azure, EC2 over
// IPv6, Azure's wire server, and Alibaba's.
const (
	metadata4 = "169.254.169.254, 168.63.129.16, 100.100.100.200"
	metadata6 = "fd00:ec2::254"
)

// What is not public: RFC 6890 and what followed it.
const (
	private4 = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3"
	private6 = "::/127, fc00::/7, fe80::/10, ff00::/8"
)

// rules drops what passes from a task's bridge to the host (input), and what
// passes through the host (forward). Name servers of the host are open to tasks,
// since the daemon asks them in the task's name.
var rules = template.Must(template.New("rules").Parse(`
table inet {{.Table}}
delete table inet {{.Table}}
table inet {{.Table}} {
	chain forward {
		type filter hook forward priority -10; policy accept;
		iifname "{{.Prefix}}*" jump outgoing
		oifname "{{.Prefix}}*" iifname "{{.Prefix}}*" drop
	}
	chain outgoing {
		ct state established,related accept
		ip daddr { {{.Metadata4}} } drop
		ip6 daddr { {{.Metadata6}} } drop
		oifname "{{.Prefix}}*" drop
		{{- range .NameServers}}
		{{if .Is4}}ip{{else}}ip6{{end}} daddr {{.}} meta l4proto { tcp, udp } th dport 53 accept
		{{- end}}
		iifname "{{.Prefix}}i*" ip daddr { {{.Private4}} } drop
		iifname "{{.Prefix}}i*" ip6 daddr { {{.Private6}} } drop
	}
	chain input {
		type filter hook input priority -10; policy accept;
		iifname "{{.Prefix}}*" jump inward
	}
	chain inward {
		ct state established,related accept
		ip daddr { {{.Metadata4}} } drop
		ip6 daddr { {{.Metadata6}} } drop
		{{- range .NameServers}}
		{{if .Is4}}ip{{else}}ip6{{end}} daddr {{.}} meta l4proto { tcp, udp } th dport 53 accept
		{{- end}}
		iifname "{{.Prefix}}i*" drop
	}
}
`))

// newFirewall puts the rules in place, or in the place of those that an earlier
// worker of the same instance has made.
func newFirewall(ctx context.Context, instance string) (*firewall, error) {
	sum := sha256.Sum256([]byte(instance))
	f := &firewall{prefix: "tc" + hex.EncodeToString(sum[:2])}
	servers, err := nameServers("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("find name servers: %w", err)
	}
	var script bytes.Buffer
	err = rules.Execute(&script, map[string]any{
		"Table": f.table(), "Prefix": f.prefix, "NameServers": servers,
		"Metadata4": metadata4, "Metadata6": metadata6, "Private4": private4, "Private6": private6,
	})
	if err != nil {
		return nil, fmt.Errorf("write firewall rules: %w", err)
	}
	if err := nft(ctx, &script); err != nil {
		return nil, fmt.Errorf("keep tasks from the metadata service and from each other: %w", err)
	}
	return f, nil
}

func (f *firewall) table() string { return "taskcluster_" + f.prefix }

// bridge returns a new name for the bridge of a task's network.
func (f *firewall) bridge(egress Egress) string {
	// A name has at most 15 characters.
	return f.prefix + string(egress[0]) + strings.ToLower(rand.Text()[:8])
}

// close removes the rules. No network may be left: it is called when the worker
// ends, and what is left then is removed before another one works.
func (f *firewall) close() error {
	if f == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return nft(ctx, strings.NewReader("delete table inet "+f.table()+"\n"))
}

func nft(ctx context.Context, script interface{ Read([]byte) (int, error) }) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = script
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("the program nft is not there: install nftables, or set docker.egress to none")
	}
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// nameServers reads the addresses of name servers that are not the host itself.
func nameServers(file string) ([]netip.Addr, error) {
	content, err := os.ReadFile(file) //nolint:gosec // a file of the host
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var servers []netip.Addr
	for s := bufio.NewScanner(bytes.NewReader(content)); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && fields[0] == "nameserver" {
			if a, err := netip.ParseAddr(fields[1]); err == nil && !a.IsLoopback() {
				servers = append(servers, a.WithZone(""))
			}
		}
	}
	return servers, nil
}
