package hostpower

// longest is how much of a comment shutdown takes, in characters.
const longest = 512

func arguments(action Action, why string) []string {
	how := "/s"
	if action == Reboot {
		how = "/r"
	}
	comment := []rune(why)
	return []string{how, "/t", "0", "/d", "p:0:0", "/c", string(comment[:min(len(comment), longest)])}
}
