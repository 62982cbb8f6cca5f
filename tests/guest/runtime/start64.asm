; From a multiboot loader to 64-bit mode, the exception stubs, and the way into a check's code and back.
; The layouts of `enter` and `caught` are struct machine_state and struct catch of guest.h.

MAGIC   equ 0x1badb002
FLAGS   equ 1 << 16                     ; addresses below
KCODE   equ 0x08
KCODE32 equ 0x30
TSS     equ 0x40

        extern image_end, bss_end, guest_main
        global start, gdt, idt, tss, page_pml4, page_pdpt, page_low, page_user, vector_stubs, enter, caught

        section .boot exec alloc
        bits 32
        align 4
header: dd MAGIC, FLAGS, -(MAGIC + FLAGS)
        dd header, header, image_end, bss_end, start

start:  cli
        cld
        mov esp, stack_top
        mov al, 0xff                    ; both interrupt controllers masked
        out 0x21, al
        out 0xa1, al

        mov edi, page_pml4              ; 64 MiB one to one for the kernel, and again at 1 GiB for users
        mov ecx, 4 * 4096 / 4
        xor eax, eax
        rep stosd
        mov dword [page_pml4], page_pdpt + 7
        mov dword [page_pdpt], page_low + 7
        mov dword [page_pdpt + 8], page_user + 7
        mov eax, 0x83
        xor ecx, ecx
.page:  mov [page_low + ecx * 8], eax
        mov [page_user + ecx * 8], eax
        or byte [page_user + ecx * 8], 4
        add eax, 0x200000
        inc ecx
        cmp ecx, 32
        jb .page

        mov eax, 1 << 5 | 3 << 9        ; PAE, OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, page_pml4
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 11 | 1 << 8 | 1    ; NXE, LME, SCE
        wrmsr
        mov eax, 0x80010033             ; PG, WP, NE, ET, MP, PE
        mov cr0, eax
        lgdt [gdt_register]
        jmp KCODE:.long
        bits 64
.long:  xor eax, eax
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov rsp, stack_top
        lldt ax

        mov rax, tss                    ; the TSS descriptor's base
        mov [gdt + TSS + 2], ax
        shr rax, 16
        mov [gdt + TSS + 4], al
        mov [gdt + TSS + 7], ah
        mov rax, ist1_top
        mov [tss + 36], rax
        mov rax, rsp0_top
        mov [tss + 4], rax
        mov word [tss + 0x66], 0x68     ; no I/O bitmap
        mov ax, TSS
        ltr ax
        fninit
        call guest_main

        section .text
; void enter(const struct machine_state* state): goes there; comes back when a vector is taken, with `caught` filled.
        default rel
enter:  push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        pushfq
        mov [harness_rsp], rsp
        push qword [rdi + 19 * 8]       ; SS
        push qword [rdi + 4 * 8]        ; RSP
        push qword [rdi + 17 * 8]       ; RFLAGS
        push qword [rdi + 18 * 8]       ; CS
        push qword [rdi + 16 * 8]       ; RIP
        mov rax, [rdi + 0 * 8]
        mov rcx, [rdi + 1 * 8]
        mov rdx, [rdi + 2 * 8]
        mov rbx, [rdi + 3 * 8]
        mov rbp, [rdi + 5 * 8]
        mov rsi, [rdi + 6 * 8]
        mov r8, [rdi + 8 * 8]
        mov r9, [rdi + 9 * 8]
        mov r10, [rdi + 10 * 8]
        mov r11, [rdi + 11 * 8]
        mov r12, [rdi + 12 * 8]
        mov r13, [rdi + 13 * 8]
        mov r14, [rdi + 14 * 8]
        mov r15, [rdi + 15 * 8]
        mov rdi, [rdi + 7 * 8]
        iretq

; One stub for each vector, 32 bytes apart.
        align 32
vector_stubs:
%assign i 0
%rep 256
        mov [caught + 20 * 8], rsp      ; where the frame is
        mov byte [caught + 21 * 8], i
        jmp near taken
        align 32
%assign i i + 1
%endrep

taken:  mov [caught + 0 * 8], rax
        mov [caught + 1 * 8], rcx
        mov [caught + 2 * 8], rdx
        mov [caught + 3 * 8], rbx
        mov [caught + 5 * 8], rbp
        mov [caught + 6 * 8], rsi
        mov [caught + 7 * 8], rdi
        mov [caught + 8 * 8], r8
        mov [caught + 9 * 8], r9
        mov [caught + 10 * 8], r10
        mov [caught + 11 * 8], r11
        mov [caught + 12 * 8], r12
        mov [caught + 13 * 8], r13
        mov [caught + 14 * 8], r14
        mov [caught + 15 * 8], r15
        pushfq                          ; RFLAGS in the handler
        pop qword [caught + 23 * 8]
        mov [caught + 24 * 8], cs
        mov [caught + 25 * 8], ss
        mov [caught + 26 * 8], ds
        mov [caught + 27 * 8], es
        mov [caught + 28 * 8], fs
        mov [caught + 29 * 8], gs
        mov rsp, [harness_rsp]
        popfq
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret

        section .data
        align 16
gdt:    dq 0
        dq 0x00af9b000000ffff           ; 08: code, 64 bits
        dq 0x00cf93000000ffff           ; 10: data
        dq 0x00cffb000000ffff           ; 18: user code, 32 bits
        dq 0x00cff3000000ffff           ; 20: user data
        dq 0x00affb000000ffff           ; 28: user code, 64 bits
        dq 0x00cf9b000000ffff           ; 30: code, 32 bits
        dq 0x00009b000000ffff           ; 38: code, 16 bits
        dq 0x0000890000000067, 0        ; 40: TSS
        times 54 dq 0                   ; 50: for the checks
gdt_register:
        dw $ - gdt - 1
        dq gdt

        section .bss
        alignb 4096
page_pml4: resb 4096
page_pdpt: resb 4096
page_low:  resb 4096
page_user: resb 4096
idt:    resb 4096
tss:    resb 4096
        resb 4096
rsp0_top:
        resb 4096
ist1_top:
        resb 16384
stack_top:
harness_rsp: resq 1
        alignb 16
caught: resq 40
