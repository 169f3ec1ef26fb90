package section

// Plugin is that of a plugin which a pool can do without.
type Plugin struct {
	Enabled bool `mapstructure:"enabled" default:"true" doc:"Whether tasks can use the plugin. Those that ask for it where it is disabled are malformed."`
}

// Required is that of a plugin without which a worker does not work.
type Required struct {
	Enabled bool `mapstructure:"enabled" default:"true" oneof:"true" doc:"Always true: no worker does without this plugin."`
}

// Artifacts is that of the plugin that uploads artifacts.
type Artifacts struct {
	Enabled     bool   `mapstructure:"enabled" default:"true" doc:"Whether tasks can have artifacts. Those that ask for some where it is disabled are malformed."`
	StorageType string `mapstructure:"storageType" default:"s3" oneof:"s3 object" doc:"How the deployment stores artifacts, logs among them."`
}

// Caches is that of the plugin that keeps caches.
type Caches struct {
	Enabled bool   `mapstructure:"enabled" default:"true" doc:"Whether tasks can have caches. Those that ask for some where it is disabled, or where the engine has none, are malformed."`
	Table   string `mapstructure:"table" computed:"caches.json, where native.dir is by default; in run and dev, with the rest" pattern:"^/" example:"/srv/caches.json" doc:"The file that says which caches there are."`
}
