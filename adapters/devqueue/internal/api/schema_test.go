package api

import "testing"

func TestSchemasCompile(t *testing.T) {
	schemas, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queue/task", "auth/client", "object/create-upload"} {
		if schemas[name] == nil {
			t.Errorf("there is no schema %s", name)
		}
	}
}
