package sidecar

// Databases lists those that there are now, each file once, by Rel; with an error, those
// that could be found all the same.
func (d Dir) Databases() ([]Found, error) {
	files, err := scan(d, nil, func(string) error { return nil })
	found, _ := choose(files, nil)
	return found, err
}
