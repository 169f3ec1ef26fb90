package setting

import "strings"

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Where   string // file and line, or environment variable; may be empty
	Path    string // of the setting; may be empty
	Message string
}

// String returns where it is, what it is about, and what is wrong.
func (p Problem) String() string {
	s := p.Message
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Where != "" {
		s = p.Where + ": " + s
	}
	return s
}

// Problems is all that is wrong with a configuration, as one error.
type Problems []Problem //nolint:errname // it is a list, read as one in most places

// Error returns a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// suggest returns the candidate that was probably meant by word, or "".
func suggest(word string, candidates []string) string {
	best, least := "", 3
	for _, c := range candidates {
		d := distance(plain(word), plain(c))
		if d < least && d < len(c)/2+1 {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return best
}

// didYouMean is the end of a message that suggests something, or nothing.
func didYouMean(what string) string {
	if what == "" {
		return ""
	}
	return "; did you mean " + what + "?"
}

// plain drops what is easily mistaken: case, and how words are joined.
func plain(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance is how many characters must be inserted, removed or replaced to make
// b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
