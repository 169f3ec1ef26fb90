package otel

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The values of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// settings is what the environment says about where telemetry goes.
type settings struct {
	traces, metrics signal
}

// signal is where one kind of telemetry goes.
type signal struct {
	on       bool
	protocol string
	timeout  time.Duration // of one request
	tls      *tls.Config   // nil for the default
}

// readSettings reads the environment, and checks also what OpenTelemetry's SDK
// reads from there itself: it passes over what it does not understand.
func readSettings() (settings, error) {
	disabled, err := read("OTEL_SDK_DISABLED", parseBool)
	if err != nil || disabled {
		return settings{}, err
	}
	traces, err := readSignal("TRACES")
	if err != nil {
		return settings{}, err
	}
	metrics, err := readSignal("METRICS")
	if err != nil {
		return settings{}, err
	}
	s := settings{traces, metrics}
	if s.traces.on || s.metrics.on {
		err = checkSDK()
	}
	return s, err
}

// readSignal reads the variables for one signal. The name of each has the
// signal's in it, or else it is for all signals.
func readSignal(name string) (signal, error) {
	exporter, err := read("OTEL_"+name+"_EXPORTER", oneOf("otlp", "none"))
	if err != nil || exporter == "none" {
		return signal{}, err
	}
	variable := func(what string) string {
		if own := "OTEL_EXPORTER_OTLP_" + name + "_" + what; get(own) != "" {
			return own
		}
		return "OTEL_EXPORTER_OTLP_" + what
	}
	if get(variable("ENDPOINT")) == "" {
		return signal{}, nil
	}
	s := signal{on: true, protocol: protocolHTTP, timeout: 10 * time.Second}
	if v, err := read(variable("PROTOCOL"), oneOf(protocolGRPC, protocolHTTP)); err != nil {
		return signal{}, err
	} else if v != "" {
		s.protocol = v
	}
	if v, err := read(variable("TIMEOUT"), parsePositive); err != nil {
		return signal{}, err
	} else if v != 0 {
		s.timeout = time.Duration(v) * time.Millisecond
	}
	_, errEndpoint := read(variable("ENDPOINT"), parseEndpoint)
	_, errInsecure := read(variable("INSECURE"), parseBool)
	_, errHeaders := read(variable("HEADERS"), parseHeaders)
	_, errCompression := read(variable("COMPRESSION"), oneOf("none", "gzip"))
	if err := errors.Join(errEndpoint, errInsecure, errHeaders, errCompression); err != nil {
		return signal{}, err
	}
	s.tls, err = readTLS(variable("CERTIFICATE"), variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY"))
	return s, err
}

// readTLS reads the certificates that variables name, or returns nil.
func readTLS(authority, certificate, key string) (*tls.Config, error) {
	var c tls.Config
	if file := get(authority); file != "" {
		pem, err := os.ReadFile(file) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("%s: %w", authority, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no certificate in PEM", authority, file)
		}
	}
	certificateFile, keyFile := get(certificate), get(key)
	if (certificateFile == "") != (keyFile == "") {
		return nil, fmt.Errorf("%s and %s must be set both or not at all", certificate, key)
	}
	if certificateFile != "" {
		pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", certificate, key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if c.RootCAs == nil && c.Certificates == nil {
		return nil, nil //nolint:nilnil // no certificates are configured
	}
	c.MinVersion = tls.VersionTLS12
	return &c, nil
}

// checkSDK checks variables that the SDK reads.
func checkSDK() error {
	_, errSampler := read("OTEL_TRACES_SAMPLER", oneOf("always_on", "always_off", "traceidratio",
		"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"))
	_, errArg := read("OTEL_TRACES_SAMPLER_ARG", parseRatio)
	_, errAttributes := read("OTEL_RESOURCE_ATTRIBUTES", parsePairs)
	_, errService := read("OTEL_SERVICE_NAME", parseUTF8)
	_, errTemporality := read("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", oneOf("cumulative", "delta", "lowmemory"))
	_, errAggregation := read("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
		oneOf("explicit_bucket_histogram", "base2_exponential_bucket_histogram"))
	errs := []error{errSampler, errArg, errAttributes, errService, errTemporality, errAggregation}
	for _, v := range []string{
		"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
		"OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT",
	} {
		_, err := read(v, parsePositive)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// get returns a variable. An empty one is as good as none.
func get(variable string) string { return strings.TrimSpace(os.Getenv(variable)) }

// read returns what a variable means, or the zero value if it is not set.
func read[T any](variable string, parse func(string) (T, error)) (T, error) {
	var v T
	s := get(variable)
	if s == "" {
		return v, nil
	}
	v, err := parse(s)
	if err != nil {
		return v, fmt.Errorf("%s: %w", variable, err)
	}
	return v, nil
}

func oneOf(values ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(values, s) {
			return "", fmt.Errorf("is %q, want one of %s", s, strings.Join(values, ", "))
		}
		return s, nil
	}
}

func parseBool(s string) (bool, error) {
	s, err := oneOf("true", "false")(strings.ToLower(s))
	return s == "true", err
}

// parsePositive parses sizes, and times in milliseconds.
func parsePositive(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("is %q, want a whole number above 0", s)
	}
	return n, nil
}

func parseRatio(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, fmt.Errorf("is %q, want a number from 0 to 1", s)
	}
	return v, nil
}

func parseUTF8(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("is %q, want valid UTF-8", s)
	}
	return s, nil
}

// parseEndpoint does not repeat s in errors: there may be a password in it.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("want a URL such as http://localhost:4318 or https://collector.example.com:4317")
	}
	if u.User != nil {
		return nil, errors.New("want a URL without user and password: they go into OTEL_EXPORTER_OTLP_HEADERS")
	}
	return u, nil
}

// parseHeaders does not repeat s in errors: there are often secrets in it.
func parseHeaders(s string) (map[string]string, error) {
	headers, err := parsePairs(s)
	if err != nil {
		return nil, err
	}
	for k, v := range headers {
		if strings.ContainsFunc(k, func(r rune) bool { return !isToken(r) }) || strings.ContainsAny(v, "\r\n\x00") {
			return nil, errors.New("want names and values that HTTP headers can have")
		}
	}
	return headers, nil
}

// isToken reports whether r can be part of a header's name, as RFC 9110 has it.
func isToken(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// parsePairs parses a list such as "key=value,other=a%2Cb".
func parsePairs(s string) (map[string]string, error) {
	pairs := map[string]string{}
	for i, pair := range strings.Split(s, ",") {
		k, v, ok := strings.Cut(pair, "=")
		k = strings.TrimSpace(k)
		v, err := url.PathUnescape(strings.TrimSpace(v))
		if !ok || k == "" || err != nil || !utf8.ValidString(k+v) {
			return nil, fmt.Errorf("part %d is not of the form key=value, with %%-escapes of UTF-8 in the value", i+1)
		}
		pairs[k] = v
	}
	return pairs, nil
}
