// Package config owns the settings of inlet, outlet and relay: it reads them
// strictly from a YAML file, the environment and the command line, in that
// order of rising precedence, and turns them into typed structs. Whatever is
// wrong is collected and reported all at once, each fault with its place (file,
// line and column; flag; or environment variable) and with what to do.
//
// In a file, ${NAME} in a value (not in a key) is replaced by the environment
// variable NAME after the YAML is parsed, so that a variable cannot add keys;
// $$ stands for $. Anchors, aliases, tags and merge keys are refused: they
// would make the place of a fault ambiguous. A relative path in a file is
// relative to that file's folder, any other to the working directory.
//
// It opens no key, listens on nothing and dials nobody.
package config
