// Package contenttype tells what a file holds by its name alone, and the same on
// every machine: it consults no database of the host.
package contenttype

import (
	"path"
	"strings"
)

// Unknown is the type of what has no known extension.
const Unknown = "application/octet-stream"

// ByName returns the content type of a file by the extension of its name, in
// the form of the HTTP header, or Unknown.
func ByName(name string) string {
	if t, ok := types[extension(name)]; ok {
		return t
	}
	return Unknown
}

// Compressed reports whether the extension of a file's name says that it is
// compressed already, so that doing it again would gain nothing.
func Compressed(name string) bool { return compressed[extension(name)] }

// extension returns the extension of a name in lower case, without its dot.
func extension(name string) string {
	return strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))
}

var compressed = func() map[string]bool {
	set := map[string]bool{}
	for ext := range strings.FieldsSeq(`7z aab apk br bz2 deb dmg flv gif gz jar jpeg jpg lz lz4 mz npz
		pkg png swf sz tbz tgz wasm webp whl woff woff2 xpi xz zip zst zz`) {
		set[ext] = true
	}
	return set
}()

var types = func() map[string]string {
	byExtension := map[string]string{}
	for contentType, extensions := range map[string]string{
		"text/plain; charset=utf-8":               "txt log text conf cfg ini err out diff patch go rs c h cc cpp hpp py rb java sh bash",
		"text/html; charset=utf-8":                "html htm",
		"text/css; charset=utf-8":                 "css",
		"text/csv; charset=utf-8":                 "csv",
		"text/markdown; charset=utf-8":            "md markdown",
		"text/javascript; charset=utf-8":          "js mjs",
		"text/xml; charset=utf-8":                 "xml",
		"text/tab-separated-values":               "tsv",
		"text/vtt":                                "vtt",
		"text/calendar":                           "ics",
		"application/json":                        "json map",
		"application/jsonl":                       "jsonl ndjson",
		"application/yaml":                        "yml yaml",
		"application/toml":                        "toml",
		"application/pdf":                         "pdf",
		"application/zip":                         "zip",
		"application/gzip":                        "gz tgz",
		"application/x-bzip2":                     "bz2 tbz tbz2",
		"application/x-xz":                        "xz txz",
		"application/zstd":                        "zst",
		"application/x-lz4":                       "lz4",
		"application/x-7z-compressed":             "7z",
		"application/vnd.rar":                     "rar",
		"application/x-tar":                       "tar",
		"application/java-archive":                "jar war",
		"application/wasm":                        "wasm",
		"application/xhtml+xml":                   "xhtml",
		"application/rss+xml":                     "rss",
		"application/atom+xml":                    "atom",
		"application/sql":                         "sql",
		"application/rtf":                         "rtf",
		"application/postscript":                  "ps eps",
		"application/msword":                      "doc",
		"application/vnd.ms-excel":                "xls",
		"application/x-msdownload":                "exe dll",
		"application/x-msi":                       "msi",
		"application/x-apple-diskimage":           "dmg",
		"application/x-xpinstall":                 "xpi",
		"application/vnd.debian.binary-package":   "deb",
		"application/x-rpm":                       "rpm",
		"application/vnd.android.package-archive": "apk",
		"application/vnd.apple.installer+xml":     "mpkg",
		"application/x-x509-ca-cert":              "crt der",
		"application/x-pem-file":                  "pem",
		"application/vnd.sqlite3":                 "sqlite sqlite3",
		"application/manifest+json":               "webmanifest",
		"image/png":                               "png apng",
		"image/jpeg":                              "jpg jpeg",
		"image/gif":                               "gif",
		"image/webp":                              "webp",
		"image/avif":                              "avif",
		"image/svg+xml":                           "svg svgz",
		"image/bmp":                               "bmp",
		"image/tiff":                              "tif tiff",
		"image/vnd.microsoft.icon":                "ico",
		"audio/mpeg":                              "mp3",
		"audio/wav":                               "wav",
		"audio/flac":                              "flac",
		"audio/ogg":                               "ogg oga opus",
		"audio/mp4":                               "m4a",
		"video/mp4":                               "mp4 m4v",
		"video/webm":                              "webm",
		"video/ogg":                               "ogv",
		"video/quicktime":                         "mov",
		"video/x-msvideo":                         "avi",
		"video/x-matroska":                        "mkv",
		"video/x-flv":                             "flv",
		"font/woff":                               "woff",
		"font/woff2":                              "woff2",
		"font/ttf":                                "ttf",
		"font/otf":                                "otf",
	} {
		for ext := range strings.FieldsSeq(extensions) {
			byExtension[ext] = contentType
		}
	}
	return byExtension
}()
