package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/corridor-enclave/corridor/host/config"
)

// The parts of Kubernetes' objects that deploy/kubernetes has. They are read
// strictly: a key that is not here is a mistake, there or here.
type (
	object struct {
		APIVersion string            `yaml:"apiVersion"`
		Kind       string            `yaml:"kind"`
		Metadata   metadata          `yaml:"metadata"`
		Data       map[string]string `yaml:"data"`
		Spec       struct {
			Selector       matching `yaml:"selector"`
			UpdateStrategy struct {
				Type          string         `yaml:"type"`
				RollingUpdate map[string]int `yaml:"rollingUpdate"`
			} `yaml:"updateStrategy"`
			Template struct {
				Metadata metadata `yaml:"metadata"`
				Spec     pod      `yaml:"spec"`
			} `yaml:"template"`
			PodSelector matching `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []flow   `yaml:"ingress"`
			Egress      []flow   `yaml:"egress"`
		} `yaml:"spec"`
	}
	metadata struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	matching struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	flow struct {
		From  []peer `yaml:"from"`
		To    []peer `yaml:"to"`
		Ports []struct {
			Protocol string `yaml:"protocol"`
			Port     int    `yaml:"port"`
		} `yaml:"ports"`
	}
	peer struct {
		NamespaceSelector matching `yaml:"namespaceSelector"`
		PodSelector       matching `yaml:"podSelector"`
		IPBlock           struct {
			CIDR   string   `yaml:"cidr"`
			Except []string `yaml:"except"`
		} `yaml:"ipBlock"`
	}
	pod struct {
		NodeSelector                  map[string]string `yaml:"nodeSelector"`
		AutomountServiceAccountToken  *bool             `yaml:"automountServiceAccountToken"`
		EnableServiceLinks            *bool             `yaml:"enableServiceLinks"`
		TerminationGracePeriodSeconds int               `yaml:"terminationGracePeriodSeconds"`
		PriorityClassName             string            `yaml:"priorityClassName"`
		SecurityContext               security          `yaml:"securityContext"`
		Containers                    []container       `yaml:"containers"`
		Volumes                       []struct {
			Name      string            `yaml:"name"`
			ConfigMap map[string]string `yaml:"configMap"`
			EmptyDir  map[string]string `yaml:"emptyDir"`
		} `yaml:"volumes"`
	}
	security struct {
		RunAsNonRoot             bool                `yaml:"runAsNonRoot"`
		RunAsUser                int                 `yaml:"runAsUser"`
		RunAsGroup               int                 `yaml:"runAsGroup"`
		FSGroup                  int                 `yaml:"fsGroup"`
		SeccompProfile           map[string]string   `yaml:"seccompProfile"`
		AllowPrivilegeEscalation *bool               `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool                `yaml:"readOnlyRootFilesystem"`
		Capabilities             map[string][]string `yaml:"capabilities"`
	}
	container struct {
		Name  string   `yaml:"name"`
		Image string   `yaml:"image"`
		Args  []string `yaml:"args"`
		Ports []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
			HostPort      int    `yaml:"hostPort"`
		} `yaml:"ports"`
		SecurityContext security                     `yaml:"securityContext"`
		LivenessProbe   probe                        `yaml:"livenessProbe"`
		ReadinessProbe  probe                        `yaml:"readinessProbe"`
		Resources       map[string]map[string]string `yaml:"resources"`
		VolumeMounts    []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet struct {
			Path string `yaml:"path"`
			Port string `yaml:"port"`
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		TimeoutSeconds   int `yaml:"timeoutSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
)

// kubernetes reads the example, by kind.
func kubernetes(t *testing.T) map[string]object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top(t), "deploy", "kubernetes", "host.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]object{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.SetStrict(true)
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Kind] = o
	}
}

// TestKubernetesExample: the pod has no privilege, its probes and ports are those
// that its settings open, and it may be reached and reach no more than it has to.
func TestKubernetesExample(t *testing.T) {
	t.Parallel()
	objects := kubernetes(t)
	for kind, version := range map[string]string{
		"Namespace": "v1", "ConfigMap": "v1", "DaemonSet": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1",
	} {
		if got := objects[kind].APIVersion; got != version {
			t.Errorf("%s is of %q, want %s", kind, got, version)
		}
	}
	spec := objects["DaemonSet"].Spec.Template.Spec
	if len(spec.Containers) != 1 {
		t.Fatalf("%d containers", len(spec.Containers))
	}
	c := spec.Containers[0]
	may := c.SecurityContext
	if !spec.SecurityContext.RunAsNonRoot || may.AllowPrivilegeEscalation == nil || *may.AllowPrivilegeEscalation ||
		!may.ReadOnlyRootFilesystem || !slices.Equal(may.Capabilities["drop"], []string{"ALL"}) || len(may.Capabilities) != 1 ||
		spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("the pod has privileges: %+v, %+v", spec.SecurityContext, may)
	}
	if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("probes %+v, %+v", c.LivenessProbe, c.ReadinessProbe)
	}

	file := filepath.Join(t.TempDir(), "host.toml")
	if err := os.WriteFile(file, []byte(objects["ConfigMap"].Data["host.toml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, _, err := config.Load([]string{"--config", file}, nil)
	if err != nil {
		t.Fatalf("the settings: %v", err)
	}
	if settings.Observe != "tcp::9090" || c.Ports[1].ContainerPort != 9090 || settings.Publish[0].Local != ":8443" || c.Ports[0].ContainerPort != 8443 {
		t.Errorf("the ports of the pod, %+v, are not those of the settings: %+v", c.Ports, settings)
	}
	if limit := spec.TerminationGracePeriodSeconds; settings.DrainTimeout.Seconds() >= float64(limit) {
		t.Errorf("draining may take %s, and the pod is killed after %d s", settings.DrainTimeout, limit)
	}
	policy := objects["NetworkPolicy"].Spec
	if !slices.Equal(policy.PolicyTypes, []string{"Ingress", "Egress"}) || policy.Ingress[0].Ports[0].Port != 8443 || len(policy.Ingress[1].From) == 0 {
		t.Errorf("policy %+v", policy)
	}
	if last := policy.Egress[len(policy.Egress)-1].To[0].IPBlock; !slices.Contains(last.Except, "169.254.0.0/16") {
		t.Errorf("enclaves may reach the metadata service: %+v", last)
	}
}

// TestSeccompProfile: it allows VSOCK, which is why it is there, and not what only
// somebody who has broken in would ask for.
func TestSeccompProfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(top(t), "deploy", "kubernetes", "seccomp-host.json"))
	if err != nil {
		t.Fatal(err)
	}
	var profile struct {
		DefaultAction   string
		DefaultErrnoRet int
		Architectures   []string
		Syscalls        []struct {
			Names  []string
			Action string
			Args   []struct {
				Index int
				Value int
				Op    string
			}
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&profile); err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("what is not named is %s", profile.DefaultAction)
	}
	families := map[int]bool{}
	for _, s := range profile.Syscalls {
		for _, name := range []string{"ptrace", "bpf", "mount", "unshare", "setns", "io_uring_setup", "process_vm_readv", "keyctl", "init_module", "setuid"} {
			if slices.Contains(s.Names, name) {
				t.Errorf("it allows %s", name)
			}
		}
		if !slices.Contains(s.Names, "socket") {
			continue
		}
		if len(s.Args) != 1 || s.Args[0].Index != 0 || s.Args[0].Op != "SCMP_CMP_EQ" {
			t.Fatalf("it allows sockets of any family: %+v", s)
		}
		families[s.Args[0].Value] = true
	}
	if !families[40] || !families[2] || !families[10] || !families[1] || len(families) != 5 {
		t.Errorf("it allows sockets of the families %v", families)
	}
}
