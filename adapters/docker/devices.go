package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// Devices are those of the host which one task at a time has each.
type Devices struct {
	Video []string // default all that match /dev/video*
	Audio []string // control devices of cards, default all that match /dev/snd/controlC*
	GPUs  []string // by index or UUID, as in docker run --gpus device=; default none
}

// device is a device of a pool.
type device struct {
	name  string
	paths []string // on the host and in the container; none for a GPU
}

// pool has the devices of one kind.
type pool struct {
	size int
	turn chan struct{} // is full while a task takes devices, so that many are not taken away from under it one by one

	mu    sync.Mutex
	free  []device
	freed chan struct{} // closed when devices are given back
}

func newPool(devices []device) *pool {
	return &pool{size: len(devices), turn: make(chan struct{}, 1), free: devices, freed: make(chan struct{})}
}

// take returns n devices, none of which anybody else has until it is given back.
// It waits for them, if need be, after a call of waiting.
func (p *pool) take(ctx context.Context, n int, waiting func()) ([]device, error) {
	select {
	case p.turn <- struct{}{}:
	default:
		waiting()
		waiting = func() {}
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-p.turn }()
	for {
		taken, freed := p.tryTake(n)
		if taken != nil {
			return taken, nil
		}
		waiting()
		waiting = func() {}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *pool) tryTake(n int) ([]device, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < n {
		return nil, p.freed
	}
	taken := slices.Clone(p.free[:n])
	p.free = slices.Delete(p.free, 0, n)
	return taken, nil
}

// give gives devices back.
func (p *pool) give(devices []device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, devices...)
	close(p.freed)
	p.freed = make(chan struct{})
}

// pools are those of a worker.
type pools struct{ video, audio, gpus *pool }

// newPools finds the host's devices.
func newPools(d Devices) (*pools, error) {
	video, err := devicesOf(d.Video, "/dev/video*", func(p string) []string { return []string{p} })
	if err != nil {
		return nil, err
	}
	audio, err := devicesOf(d.Audio, "/dev/snd/controlC*", card)
	if err != nil {
		return nil, err
	}
	var gpus []device
	for _, id := range d.GPUs {
		gpus = append(gpus, device{name: id})
	}
	return &pools{video: newPool(video), audio: newPool(audio), gpus: newPool(gpus)}, nil
}

// devicesOf returns devices by the paths that they are named by.
func devicesOf(paths []string, pattern string, all func(string) []string) ([]device, error) {
	if len(paths) == 0 {
		var err error
		if paths, err = filepath.Glob(pattern); err != nil {
			return nil, fmt.Errorf("find devices %s: %w", pattern, err)
		}
	}
	var devices []device
	for _, p := range paths {
		switch stat, err := os.Stat(p); {
		case err != nil:
			return nil, fmt.Errorf("find device: %w", err)
		case stat.Mode()&fs.ModeDevice == 0:
			return nil, fmt.Errorf("find device: %s is none", p)
		}
		devices = append(devices, device{name: p, paths: all(p)})
	}
	return devices, nil
}

// card returns the devices of the sound card that has a control device: as
// /dev/snd/controlC1, so /dev/snd/pcmC1D0p and others.
func card(control string) []string {
	dir, base := path.Split(control)
	streams, _ := filepath.Glob(dir + "pcm" + strings.TrimPrefix(base, "control") + "D*") // the pattern is valid
	return append([]string{control}, streams...)
}

// loan is the devices that a task has.
type loan struct {
	pool    *pool
	devices []device
}

// lend takes the devices that a task asks for, and was granted. Kinds are taken
// in an order that is the same for all tasks, so that none waits for another
// that waits for it.
//
// Faults: Unavailable, Malformed.
func (e *Engine) lend(ctx context.Context, granted []wish, waiting func(what string)) (loans []loan, err error) {
	defer func() {
		if err != nil {
			release(loans)
			loans = nil
		}
	}()
	for i := range granted {
		w := &granted[i]
		if w.path != "" {
			if _, err := os.Stat(w.path); err != nil {
				return loans, fault.Unavailablef(err, "this worker has no %s", w.path)
			}
		}
		switch {
		case w.pool == nil:
			continue
		case w.pool.size == 0:
			return loans, fault.Unavailablef(errors.New("there is no such device"), "this worker has nothing for payload.capabilities.%s", w.name)
		case w.pool.size < w.count:
			return loans, fault.Malformedf("payload.capabilities.%s: %d are too many, workers of pool %s have %d", w.name, w.count, e.config.Pool, w.pool.size)
		}
		devices, err := w.pool.take(ctx, w.count, func() { waiting(w.name) })
		if err != nil {
			return loans, err
		}
		w.devices = devices
		loans = append(loans, loan{w.pool, devices})
	}
	return loans, nil
}

// hold takes the devices of a name each, which the task of an earlier worker has.
func (p *pools) hold(names []string) (loans []loan) {
	for _, pool := range []*pool{p.video, p.audio, p.gpus} {
		pool.mu.Lock()
		var held, free []device
		for _, d := range pool.free {
			if slices.Contains(names, d.name) {
				held = append(held, d)
			} else {
				free = append(free, d)
			}
		}
		pool.free = free
		pool.mu.Unlock()
		loans = append(loans, loan{pool, held})
	}
	return loans
}

func release(loans []loan) {
	for _, l := range loans {
		l.pool.give(l.devices)
	}
}

// mapDevices gives a container devices of the host.
func mapDevices(h *container.HostConfig, devices []device) {
	for _, d := range devices {
		for _, p := range d.paths {
			h.Devices = append(h.Devices, container.DeviceMapping{PathOnHost: p, PathInContainer: p, CgroupPermissions: "rwm"})
		}
	}
}

// requestGPUs gives a container GPUs.
func requestGPUs(h *container.HostConfig, gpus []device) {
	r := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	for _, g := range gpus {
		r.DeviceIDs = append(r.DeviceIDs, g.name)
	}
	h.DeviceRequests = append(h.DeviceRequests, r)
}
