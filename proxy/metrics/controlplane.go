package metrics

// ControlPlane is who else configures this proxy.
type ControlPlane struct {
	Connected bool // there is a stream of an affirmed one
	Withdrawn bool // nothing of it is in use: there was none for too long
	Warming   int  // resources that wait for others
	Types     []ResourceType
	Policies  []PushedPolicy
}

// ResourceType is what came of one type of resource.
type ResourceType struct {
	Type              string
	Resources         int
	Accepted, Refused uint64 // updates
	Stands            bool   // nothing was accepted since the last refusal
}

// PushedPolicy is a policy that came from the control plane.
type PushedPolicy struct {
	Name   string
	Serial uint64
}

func controlPlaneOne(name, help string, f func(*ControlPlane) float64) definition {
	return definition{Family: Family{"jurat_xds_" + name, Gauge, nil, help}, numbers: func(s *state, emit number) {
		if s.ControlPlane != nil {
			emit(f(s.ControlPlane))
		}
	}}
}

func controlPlaneType(kind, name, help string, labels []string, f func(*ResourceType, number)) definition {
	return definition{Family: Family{"jurat_xds_" + name, kind, labels, help}, numbers: func(s *state, emit number) {
		if s.ControlPlane != nil {
			for i := range s.ControlPlane.Types {
				f(&s.ControlPlane.Types[i], emit)
			}
		}
	}}
}

func controlPlane() []definition {
	return []definition{
		controlPlaneOne("connected", "1 where an affirmed control plane is there.", func(c *ControlPlane) float64 { return truth(c.Connected) }),
		controlPlaneOne("withdrawn", "1 where nothing of what the control plane has sent is in use, for want of one.", func(c *ControlPlane) float64 { return truth(c.Withdrawn) }),
		controlPlaneOne("warming_resources", "Resources that are not in use, or not as they are now, because they wait for others.", func(c *ControlPlane) float64 { return float64(c.Warming) }),
		controlPlaneType(Gauge, "resources", "Resources that were accepted.", []string{"type"}, func(t *ResourceType, emit number) {
			emit(float64(t.Resources), t.Type)
		}),
		controlPlaneType(Counter, "updates_total", "Updates, by what came of them.", []string{"type", "outcome"}, func(t *ResourceType, emit number) {
			emit(float64(t.Accepted), t.Type, "accepted")
			emit(float64(t.Refused), t.Type, "refused")
		}),
		controlPlaneType(Gauge, "out_of_date", "1 where nothing of the type was accepted since the last refusal.", []string{"type"}, func(t *ResourceType, emit number) {
			emit(truth(t.Stands), t.Type)
		}),
		{Family: Family{"jurat_xds_policy_serial", Gauge, []string{"policy"}, "The serial of a policy that was pushed and is in use."}, numbers: func(s *state, emit number) {
			if s.ControlPlane != nil {
				for _, p := range s.ControlPlane.Policies {
					emit(float64(p.Serial), p.Name)
				}
			}
		}},
	}
}
